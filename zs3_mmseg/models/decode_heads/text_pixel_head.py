"""A trained map from pixel features to the space of the class embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings.queries import ClassQueries

from .cosine import cosine_maps
from .zero_shot_head import ZeroShotHead

#: Upper bound of the learned scale, as in CLIP (arXiv 2103.00020, section 2.5).
MAX_SCALE = 100.0


@MODELS.register_module()
class TextPixelHead(ZeroShotHead):
    """Projected pixel features against class embeddings, trained by cross-entropy.

    It stands on patch tokens or on the features of any mmseg backbone. What it learns
    is the projection and the temperature; classes stay rows, so that a new row is a
    new class without training.

    Args:
        in_channels: channels of the features.
        embed_dim: width of the class embeddings; ``in_channels`` if None.
        projection: ``'none'``, ``'linear'`` (one 1x1 convolution) or ``'mlp'`` (two,
            with a GELU between).
        channels: hidden width of the ``'mlp'``; ``embed_dim`` if None.
        scale: initial factor on the cosines, in (0, 100].
        learn_scale: whether the factor is trained.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for an unknown projection, a scale out of range, or
            ``projection='none'`` between spaces of different widths.
    """

    score_kind = 'softmax'

    def __init__(
        self,
        in_channels: int,
        *,
        embed_dim: int | None = None,
        projection: Literal['none', 'linear', 'mlp'] = 'linear',
        channels: int | None = None,
        scale: float = 20.0,
        learn_scale: bool = True,
        **kwargs: Any,
    ) -> None:
        embed_dim = embed_dim or in_channels
        channels = channels or embed_dim
        super().__init__(in_channels, channels, **kwargs)
        if not 0 < scale <= MAX_SCALE:
            raise ValueError(f'scale must be in (0, {MAX_SCALE:g}], not {scale}')
        self.projection = _projection(projection, in_channels, channels, embed_dim)
        log_scale = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer('log_scale', log_scale)

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
    ) -> Tensor:
        """Return scaled cosines of projected features and rows, ``(N, Q, h, w)``."""
        features = self.projection(self._transform_inputs(inputs))  # (N, D, h, w)
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        return scale * cosine_maps(features, queries.embeddings)


def _projection(
    kind: str, in_channels: int, channels: int, embed_dim: int
) -> nn.Module:
    if kind == 'none':
        if in_channels != embed_dim:
            raise ValueError(
                f"projection='none' keeps {in_channels} channels, but the class "
                f"embeddings have {embed_dim}: use 'linear' or 'mlp'"
            )
        return nn.Identity()
    if kind == 'linear':
        return nn.Conv2d(in_channels, embed_dim, 1)
    if kind == 'mlp':
        return nn.Sequential(
            nn.Conv2d(in_channels, channels, 1),
            nn.GELU(),
            nn.Conv2d(channels, embed_dim, 1),
        )
    raise ValueError(f"projection must be 'none', 'linear' or 'mlp', not {kind!r}")
