"""The decoder of ZS3Net's segmentor, which holds the official weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.aspp_head import ASPPModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS

from zs3_mmseg.utils.config_check import ConfigError

#: Of a backbone with an output stride of 16.
ASPP_DILATIONS = (1, 6, 12, 18)


@MODELS.register_module()
class ZS3DeepLabHead(BaseDecodeHead):
    """DeepLabv3+ (arXiv 1802.02611) as ZS3Net's code computes it.

    mmseg's ``DepthwiseSeparableASPPHead`` cannot hold these weights: here all
    convolutions are dense, a 1x1 convolution with dropout follows the pyramid, whose
    parts stand in another order, and dropout drops single values, not channels. It ends
    in ``conv_seg``, so ``GenerativeRetrainingHook`` works on it.

    Args:
        in_channels: channels of the deepest map.
        channels: of the pyramid and of what enters ``conv_seg``.
        c1_in_channels: channels of the first map, which has details.
        c1_channels: channels that are kept of them.
        dilations: of the pyramid's convolutions; those of 1 are 1x1.
        inner_dropout: after the pyramid and within the decoder, in [0, 1).
        dropout_ratio: before ``conv_seg``, in [0, 1).
        align_corners: how maps are resized.
        **kwargs: see mmseg's ``BaseDecodeHead``.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        *,
        c1_in_channels: int = 256,
        c1_channels: int = 48,
        dilations: Sequence[int] = ASPP_DILATIONS,
        inner_dropout: float = 0.5,
        dropout_ratio: float = 0.1,
        align_corners: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            dropout_ratio=dropout_ratio,
            align_corners=align_corners,
            **kwargs,
        )
        if dropout_ratio > 0:
            self.dropout = nn.Dropout(dropout_ratio)
        layer = dict(
            conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg
        )
        self.c1_in_channels = c1_in_channels
        self.aspp_modules = ASPPModule(tuple(dilations), in_channels, channels, **layer)
        self.image_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), ConvModule(in_channels, channels, 1, **layer)
        )
        self.bottleneck = nn.Sequential(
            ConvModule((len(dilations) + 1) * channels, channels, 1, **layer),
            nn.Dropout(inner_dropout),
        )
        # In a sequence: a direct child would draw its weights in its own way,
        # whatever init_cfg says.
        self.c1_bottleneck = nn.Sequential(
            ConvModule(c1_in_channels, c1_channels, 1, **layer)
        )
        self.decoder = nn.Sequential(
            ConvModule(channels + c1_channels, channels, 3, padding=1, **layer),
            nn.Dropout(inner_dropout),
            ConvModule(channels, channels, 3, padding=1, **layer),
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return logits at the size of the first map.

        Args:
            inputs: maps ``(N, C, h, w)`` of the backbone; the first has the details,
                ``in_index`` says which is the deepest.

        Returns:
            ``(N, K, h, w)``.
        """
        x = self._transform_inputs(inputs)
        pooled = self._resize_to(self.image_pool(x), x)
        x = self.bottleneck(torch.cat([*self.aspp_modules(x), pooled], dim=1))
        if inputs[0].shape[1] != self.c1_in_channels:
            raise ConfigError(
                f'model.decode_head.c1_in_channels is {self.c1_in_channels}, but the '
                f'first map has {inputs[0].shape[1]} channels: set these'
            )
        details = self.c1_bottleneck(inputs[0])
        x = self._resize_to(x, details)
        return self.cls_seg(self.decoder(torch.cat([x, details], dim=1)))

    def _resize_to(self, x: Tensor, other: Tensor) -> Tensor:
        return resize(
            x,
            size=other.shape[2:],
            mode='bilinear',
            align_corners=self.align_corners,
        )
