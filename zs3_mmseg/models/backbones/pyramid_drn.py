"""A dilated residual network with pyramid pooling: the other image encoder of SAZS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.models.backbones.resnet import Bottleneck
from mmseg.models.decode_heads.psp_head import PPM
from mmseg.models.utils import ResLayer
from mmseg.registry import MODELS

#: Strides and dilations of the stages 1 to 8 of DRN-D (arXiv 1705.09914); stages 1, 2,
#: 7 and 8 are plain convolutions, the others bottlenecks.
STRIDES = (1, 2, 2, 2, 1, 1, 1, 1)
DILATIONS = (1, 1, 1, 1, 2, 4, 2, 1)
_BOTTLENECKS = range(3, 7)
#: Bins of the pyramid in each direction (arXiv 1612.01105).
POOL_SCALES = (1, 2, 3, 6)


@MODELS.register_module()
class PyramidDRN(BaseModule):
    """DRN-D and a pyramid of pooled maps, at an eighth of the image's resolution.

    The trunk has stride 8: dilations take the place of later strides, and two plain
    stages undo the gridding that they leave. Its map and four pooled ones, each behind
    a 1x1 convolution, are joined by a 3x3 convolution. Convolutions have no bias and
    are followed by a norm and a ReLU.

    Args:
        layers: how many blocks or convolutions the stages 1 to 8 have. Those of
            DRN-D-105 by default.
        channels: widths of these stages; bottlenecks give 4 times as many.
        dropout_ratio: of whole channels of the result; 0.95 for PASCAL-5i and 0.9 for
            COCO-20i in SAZS's released code.
        norm_cfg: config of the norms.
        init_cfg: see mmengine. By default convolutions of the trunk are drawn from
            ``N(0, 2 / (k * k * out_channels))``, the others as torch does.

    Raises:
        ValueError: unless there are eight stages; in use, for images smaller than 8
            pixels.
    """

    def __init__(
        self,
        layers: Sequence[int] = (1, 1, 3, 4, 23, 3, 1, 1),
        channels: Sequence[int] = (16, 32, 64, 128, 256, 512, 512, 512),
        *,
        dropout_ratio: float = 0.95,
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        if len(layers) != len(STRIDES) or len(channels) != len(STRIDES):
            raise ValueError(
                f'PyramidDRN.layers and channels are one number for each of '
                f'{len(STRIDES)} stages, got {tuple(layers)} and {tuple(channels)}'
            )
        norm = norm_cfg or dict(type='BN')
        stages: list[nn.Module] = [_conv(3, channels[0], 7, norm)]
        width = channels[0]
        for number, (depth, planes) in enumerate(
            zip(layers, channels, strict=True), start=1
        ):
            options: dict[str, Any] = dict(
                stride=STRIDES[number - 1], dilation=DILATIONS[number - 1]
            )
            if number in _BOTTLENECKS:
                stages.append(
                    ResLayer(Bottleneck, width, planes, depth, norm_cfg=norm, **options)
                )
                width = planes * Bottleneck.expansion
            else:
                stages.append(_convs(width, planes, depth, norm, **options))
                width = planes
        self.stages = nn.ModuleList(stages)
        self.out_channels = (width,)
        self.pyramid = PPM(
            POOL_SCALES,
            width,
            width,
            conv_cfg=None,
            norm_cfg=norm,
            act_cfg=dict(type='ReLU'),
            align_corners=False,
        )
        joined = (1 + len(POOL_SCALES)) * width
        self.fuse = _conv(joined, width, 3, norm)
        self.dropout = nn.Dropout2d(dropout_ratio)
        self._draw()

    def _draw(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
                if name.startswith('stages.'):
                    fan_out = math.prod(module.kernel_size) * module.out_channels
                    nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def init_weights(self) -> None:
        """Draw the convolutions, unless ``init_cfg`` says otherwise."""
        super().init_weights()
        if self.init_cfg is None:
            self._draw()

    def forward(self, img: Tensor) -> tuple[Tensor]:
        """Return one map ``(N, C, H / 8, W / 8)`` of images ``(N, 3, H, W)``."""
        if min(img.shape[2:]) < 8:
            raise ValueError(
                f'an image of {img.shape[3]} x {img.shape[2]} pixels is too small for '
                'a network of stride 8'
            )
        for stage in self.stages:
            img = stage(img)
        maps = torch.cat([img, *self.pyramid(img)], dim=1)
        return (self.dropout(self.fuse(maps)),)


def _conv(
    in_channels: int,
    channels: int,
    kernel: int,
    norm_cfg: dict[str, Any],
    stride: int = 1,
    dilation: int = 1,
) -> ConvModule:
    return ConvModule(
        in_channels,
        channels,
        kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        norm_cfg=norm_cfg,
    )


def _convs(
    in_channels: int,
    channels: int,
    depth: int,
    norm_cfg: dict[str, Any],
    *,
    stride: int,
    dilation: int,
) -> nn.Sequential:
    """Return a stage of plain 3x3 convolutions."""
    return nn.Sequential(
        *(
            _conv(
                channels if index else in_channels,
                channels,
                3,
                norm_cfg,
                1 if index else stride,
                dilation,
            )
            for index in range(depth)
        )
    )
