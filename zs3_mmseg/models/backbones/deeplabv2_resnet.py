"""The trunk of DeepLabv2, as Caffe's weights expect it."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS


@MODELS.register_module()
class DeepLabV2ResNet(ResNet):
    """mmseg's ``ResNet`` whose max pooling rounds sizes up (DeepLabv2, 1606.00915).

    Strides are in the first convolution of a block, the last two stages are dilated by
    2 and 4, and batch norm is frozen, weights included. Maps of 321 + 48 k pixels are
    then 41 + 6 k wide, and those of an even number of pixels one wider than mmseg's.

    Args:
        depth: 50, 101 or 152.
        **kwargs: other options of ``ResNet``.
    """

    def __init__(self, depth: int = 101, **kwargs: Any) -> None:
        options = dict(
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            style='caffe',
            norm_cfg=dict(type='BN', requires_grad=False),
            norm_eval=True,
        )
        super().__init__(depth, **{**options, **kwargs})
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=True)
