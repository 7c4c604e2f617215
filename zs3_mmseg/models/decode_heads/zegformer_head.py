"""ZegFormer: queries find masks, text rows name them, and CLIP looks once more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS
from mmseg.utils import ConfigType

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.region_classifiers import LogitRegionClassifier, Regions

from .query_mask_head import QueryMaskHead, QueryMasks, require_divisible
from .query_masks import MLP, FPNPixelDecoder, QueryDecoder


@MODELS.register_module()
class ZegFormerHead(QueryMaskHead):
    r"""Mask queries with a classifier of text rows (ZegFormer, arXiv 2112.07910).

    A pixel decoder makes mask features :math:`F` of four maps, a query decoder makes
    :math:`q_i` of the coarsest. Each query is a mask, :math:`m_i = MLP(q_i) \cdot F`,
    and a direction in the space of the texts, :math:`g_i = W q_i / |W q_i|`, with

    .. math:: z_{ik} = s\, g_i \cdot t_k, \qquad z_{i\varnothing} = s\, g_i \cdot b

    for text rows :math:`t_k`, of length 1 as banks make them, and a learned :math:`b`
    of any length, "no object". It trains with the rows of seen classes; other rows take
    their place in the test, and nothing else changes. Pixel :math:`p` scores
    :math:`\sum_i c_{ik} \sigma(m_{ip})` for class :math:`k`, where :math:`c_i` is the
    softmax of :math:`z_i` without its last entry.

    **The second look** (section 3.4). ``region_classifier`` sees the picture through
    each mask (:math:`m_i > 0`, at input size). Its logits, with
    :math:`z_{i\varnothing}` behind them, become :math:`r_i` as above, and

    .. math:: c_{ik} \leftarrow c_{ik}^{1 - w_k}\, r_{ik}^{w_k}

    with the weight of the group of class :math:`k`; with ``pool_seen``, :math:`r_{ik}`
    of a seen class is the mean over all seen classes, so that there only the head tells
    them apart. Without a region classifier it is the paper's ZegFormer-seg.

    Transductive training fills unlabelled pixels by the scores above, without the
    second look.

    Args:
        in_channels: of the four maps, fine to coarse.
        channels: of the query decoder.
        embed_dim: length of a text row.
        pixel_channels: of the pixel decoder; ``channels`` if None.
        mask_channels: of the mask features; ``channels`` if None.
        num_queries: masks per image.
        num_layers: of the query decoder; each is supervised.
        num_heads: of its attentions; it divides ``channels``.
        feedforward_channels: inside its layers.
        dropout: in its layers.
        num_groups: of the pixel decoder's group norms; it divides its channels.
        scale: :math:`s`, a constant.
        loss_masks: options of :class:`MaskClassificationLoss`.
        region_classifier: config of a
            :class:`~zs3_mmseg.models.region_classifiers.LogitRegionClassifier`, such as
            ``CropClassifier``, or one; only used in the test.
        seen_weight: :math:`w_k` of seen classes, 0..1. The defaults are the published
            ones; 2/3 for both groups without ``pool_seen`` is the paper's ensemble of
            all classes, and 1 for both leaves the region classifier alone.
        unseen_weight: :math:`w_k` of unseen classes, 0..1.
        pool_seen: see above.
        in_index: which maps of the backbone are read, fine to coarse.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for weights outside 0..1, and widths that heads or groups do not
            divide.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        *,
        embed_dim: int,
        pixel_channels: int | None = None,
        mask_channels: int | None = None,
        num_queries: int = 100,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        num_groups: int = 32,
        scale: float = 100.0,
        loss_masks: ConfigType | None = None,
        region_classifier: ConfigType | LogitRegionClassifier | None = None,
        seen_weight: float = 1 / 3,
        unseen_weight: float = 2 / 3,
        pool_seen: bool = True,
        in_index: Sequence[int] = (0, 1, 2, 3),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            embed_dim=embed_dim,
            loss_masks=loss_masks,
            region_classifier=region_classifier,
            seen_weight=seen_weight,
            unseen_weight=unseen_weight,
            in_index=in_index,
            **kwargs,
        )
        pixel_channels = pixel_channels or channels
        require_divisible(
            num_heads=(num_heads, channels), num_groups=(num_groups, pixel_channels)
        )
        if not scale > 0:
            raise ValueError(f'scale must be > 0, not {scale}')
        self.scale = scale
        self.pool_seen = pool_seen
        mask_channels = mask_channels or channels
        self.pixel_decoder = FPNPixelDecoder(
            in_channels, pixel_channels, mask_channels, num_groups=num_groups
        )
        self.query_decoder = QueryDecoder(
            in_channels[-1],
            channels,
            num_queries=num_queries,
            num_layers=num_layers,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout,
        )
        self.mask_embed = MLP(channels, channels, channels, mask_channels)
        self.projection = nn.Linear(channels, embed_dim)
        self.no_object = nn.Parameter(torch.empty(1, embed_dim))
        self._draw()

    def _draw(self) -> None:
        self.pixel_decoder.draw()
        self.query_decoder.draw()
        nn.init.kaiming_uniform_(self.no_object, a=math.sqrt(5))

    def _queries_and_features(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return queries ``(L, N, M, C)`` and mask features ``(N, C', h, w)``."""
        maps = self._transform_inputs(inputs)
        return self.query_decoder(maps[-1]), self.pixel_decoder(maps)[0]

    def _found(
        self, found: Tensor, features: Tensor, queries: ClassQueries
    ) -> QueryMasks:
        """Return classes and masks of query outputs ``(L, N, M, C)``."""
        directions = F.normalize(self.projection(found), dim=-1)
        logits = self._text_logits(directions, queries, self.no_object, self.scale)
        masks = self.mask_embed(found) @ features.flatten(2)
        return QueryMasks(logits, masks.unflatten(-1, features.shape[-2:]))

    def find(
        self, inputs: Sequence[Tensor], queries: ClassQueries, every: bool
    ) -> QueryMasks:
        """Return what the queries of every layer, or of the last one, found."""
        found, features = self._queries_and_features(inputs)
        return self._found(found if every else found[-1:], features, queries)

    def joined(
        self, class_logits: Tensor, looked: Tensor, seen: Tensor, regions: Regions
    ) -> Tensor:
        """Return the geometric mean of both scores ``(N, M, K)``, by group."""
        scores = class_logits.softmax(dim=-1)[..., :-1]
        with_none = torch.cat([looked, class_logits[..., -1:].to(looked)], dim=-1)
        other = with_none.softmax(dim=-1)[..., :-1].to(scores)
        if self.pool_seen and seen.any():
            mean = other[..., seen].mean(dim=-1, keepdim=True)
            other = torch.where(seen, mean, other)
        weights = self._weights(seen).to(scores)
        return scores ** (1 - weights) * other**weights
