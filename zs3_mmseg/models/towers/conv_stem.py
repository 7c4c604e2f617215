"""A convolutional stem in the place of an open_clip ViT's patch convolution."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn


class ConvStem(nn.Sequential):
    """Strided 3x3 convolutions that end on the patch grid.

    One convolution with stride 2 per halving of the image, each followed by a
    normalisation over all channels and GELU, then a 1x1 convolution (Xiao et al.
    2021, "Early Convolutions Help Transformers See Better", section 4; group
    normalisation in place of batch normalisation, so that no image depends on the
    others of its batch).

    Args:
        channels: of the convolutions before the last strided one, e.g. ``(32, 64)``
            for patches of 8 x 8 pixels.
        width: channels of the tokens.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        sizes = [3, *channels, width]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(1, after),
                nn.GELU(),
            ]
        super().__init__(*layers, nn.Conv2d(width, width, 1, bias=False))
        #: As the patch convolution that it replaces has it.
        self.out_channels = width


def replace_patch_convolution(visual: Any, channels: Sequence[int]) -> None:
    """Put a :class:`ConvStem` in the place of ``visual.conv1``.

    Args:
        visual: the image tower of an open_clip model.
        channels: see :class:`ConvStem`.

    Raises:
        ValueError: if the tower has no patch convolution, or the stem's stride is not
            the size of a patch.
    """
    if not isinstance(getattr(visual, 'conv1', None), nn.Conv2d):
        raise ValueError(
            'conv_stem replaces the patch convolution of an open_clip '
            f'VisionTransformer; this image tower is a {type(visual).__name__}. '
            'Remove conv_stem from the model config.'
        )
    patch = visual.patch_size
    stride = 2 ** (len(channels) + 1)
    if tuple(patch) != (stride, stride):
        raise ValueError(
            f'conv_stem={list(channels)} halves the image {len(channels) + 1} times, '
            f'which makes patches of {stride} x {stride} pixels; vision_cfg.patch_size '
            f'is {patch[0]} x {patch[1]}'
        )
    visual.conv1 = ConvStem(channels, visual.conv1.out_channels)
