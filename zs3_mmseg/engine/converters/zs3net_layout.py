"""The sizes of an official ZS3Net segmentor, read from the shapes of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from zs3_mmseg.utils.checkpoint import CheckpointError

from .clip_parts import count_numbered, shape_reader

#: Blocks of each stage to the name of the network.
_DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


@dataclass(frozen=True)
class ZS3NetLayout:
    """Sizes of a ZS3Net segmentor.

    Attributes:
        depth: of the ResNet.
        stem_channels: of its first convolution.
        base_channels: of the first stage's inner convolutions.
        channels: of the pyramid and of what enters the classifier.
        c1_channels: of the details that join it.
        num_classes: outputs, seen and unseen.
    """

    depth: int
    stem_channels: int
    base_channels: int
    channels: int
    c1_channels: int
    num_classes: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor], what: str) -> ZS3NetLayout:
        """Read the sizes of an official state dict.

        Args:
            state: with the official keys.
            what: how messages call it, e.g. the file.

        Raises:
            CheckpointError: if a weight that tells a size is not there, or the ResNet
                is of no known depth.
        """
        shape = shape_reader(state, f'{what} is no official ZS3Net segmentor')
        num_classes, channels, _, _ = shape('decoder.pred_conv.weight', 4)
        blocks = tuple(
            count_numbered(state, f'backbone.layer{stage}') for stage in range(1, 5)
        )
        if blocks not in _DEPTHS:
            raise CheckpointError(
                f'{what}: stages of {", ".join(map(str, blocks))} blocks are none of '
                'the ResNets 50, 101 and 152'
            )
        return cls(
            depth=_DEPTHS[blocks],
            stem_channels=shape('backbone.conv1.weight', 4)[0],
            base_channels=shape('backbone.layer1.0.conv1.weight', 4)[0],
            channels=channels,
            c1_channels=shape('decoder.conv1.weight', 4)[0],
            num_classes=num_classes,
        )

    def model_config(self) -> dict[str, Any]:
        """Return the parts of a segmentor's config that a checkpoint fits."""
        norm = dict(type='BN', requires_grad=True)
        expansion = 4
        widths: dict[str, int] = {}
        if (self.stem_channels, self.base_channels) != (64, 64):
            widths = dict(
                stem_channels=self.stem_channels, base_channels=self.base_channels
            )
        return dict(
            backbone=dict(
                type='ResNet',
                depth=self.depth,
                strides=(1, 2, 2, 1),
                dilations=(1, 1, 1, 2),
                multi_grid=(2, 4, 8),
                norm_cfg=norm,
                **widths,
            ),
            decode_head=dict(
                type='ZS3DeepLabHead',
                in_channels=8 * expansion * self.base_channels,
                in_index=3,
                channels=self.channels,
                c1_in_channels=expansion * self.base_channels,
                c1_channels=self.c1_channels,
                num_classes=self.num_classes,
                norm_cfg=norm,
            ),
        )

    def empty_model(self) -> nn.Module:
        """Build what holds the weights, without memory for any."""
        with (
            torch.device('meta'),
            DefaultScope.overwrite_default_scope('mmseg'),
        ):
            model = nn.Module()
            for name, config in self.model_config().items():
                model.add_module(name, MODELS.build(config))
        return model
