"""Region classifiers: names for masks that somebody else has found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.decode_heads.zero_shot_head import reduce_queries

__all__ = ['MaskPoolingClassifier', 'RegionClassifier', 'Regions']


@dataclass(frozen=True)
class Regions:
    """What a region classifier may look at.

    Attributes:
        masks: ``(N, M, H, W)`` bool at network input size; surplus masks of images
            with fewer than ``M`` are empty.
        image: the picture, see ``InputImage`` of the segmentors.
        maps: the maps ``(N, C, h, w)`` that the head reads, one per stage.
        global_token: ``(N, E)`` of the whole picture, if there is one.
    """

    masks: Tensor
    image: Any
    maps: tuple[Tensor, ...]
    global_token: Tensor | None = None


class RegionClassifier(nn.Module, ABC):
    """Scores each mask for each class."""

    @abstractmethod
    def forward(self, regions: Regions, queries: ClassQueries) -> Tensor:
        """Return scores of masks.

        Args:
            regions: masks and what is known of the picture.
            queries: rows of the ``K`` classes.

        Returns:
            ``(N, M, K)``, 0..1, finite for empty masks too. Synonyms are reduced, and
            softmaxes over classes are done, here.
        """


@MODELS.register_module()
class MaskPoolingClassifier(RegionClassifier):
    r"""Pools dense features below each mask and compares them with class rows.

    With features :math:`f_p`, the share :math:`m_p` of patch :math:`p` that a mask
    covers and rows :math:`t_q`,

    .. math:: s_q = \mathrm{softmax}_q\bigl(\tau\,
        \cos(\textstyle\sum_p m_p f_p / \sum_p m_p,\ t_q)\bigr),

    the pooling of FC-CLIP (arXiv 2308.02487, section 3.3) without its learnt parts. A
    class scores as its best synonym. Empty masks score 0.

    Args:
        scale: :math:`\tau`, factor on the cosines, > 0.
        in_index: which of the head's maps holds the features.

    Raises:
        ValueError: if ``scale`` is not positive.
    """

    def __init__(self, *, scale: float = 100.0, in_index: int = -1) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f'scale must be > 0, not {scale}')
        self.scale = scale
        self.in_index = in_index

    def forward(self, regions: Regions, queries: ClassQueries) -> Tensor:
        """Return softmax scores ``(N, M, K)``."""
        features = regions.maps[self.in_index]  # (N, C, h, w)
        grid = (features.shape[2], features.shape[3])
        shares = F.adaptive_avg_pool2d(regions.masks.float(), grid)
        weights = shares.flatten(2)  # (N, M, hw)
        pooled = weights @ features.flatten(2).transpose(1, 2)  # (N, M, C)
        rows = F.normalize(queries.embeddings, dim=-1)
        logits = self.scale * F.normalize(pooled, dim=-1) @ rows.T  # (N, M, Q)
        logits = reduce_queries(
            logits.transpose(1, 2), queries.queries_per_class, 'max'
        ).transpose(1, 2)
        empty = weights.sum(dim=-1, keepdim=True) == 0
        return torch.where(empty, 0, logits.softmax(dim=-1))
