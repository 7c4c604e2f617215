"""FC-CLIP: one frozen convolutional CLIP finds masks and names them."""

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
from zs3_mmseg.utils.names import choose

from .deformable import DeformablePixelDecoder
from .query_mask_head import QueryMaskHead, QueryMasks, require_divisible
from .query_masks import (
    MLP,
    FPNPixelDecoder,
    MaskedQueryDecoder,
    cells_inside,
    pooled,
)

#: The largest factor on cosines, of a learned scale.
MAX_SCALE = 100.0
#: Added to each class score before they are made to sum to 1.
EPSILON = 1e-8


@MODELS.register_module()
class FCCLIPHead(QueryMaskHead):
    r"""Mask queries on the maps of a frozen CLIP (FC-CLIP, arXiv 2308.02487).

    A pixel decoder makes mask features :math:`F` and three maps, a masked-attention
    decoder queries :math:`q_i` and masks :math:`m_i`, once before its first layer and
    after each. A query's direction in the space of the texts is

    .. math:: e_i = \mathrm{MLP}\bigl(\mathrm{Linear}(\mathrm{LN}(\bar F_i)) + q_i\bigr)

    with the mean :math:`\bar F_i` of the mask features where :math:`m_i > 0`, and

    .. math:: z_{ik} = \min(e^s, 100)\, \max_{t \in T_k} \cos(e_i, t), \qquad
        z_{i\varnothing} = \min(e^s, 100) \cos(e_i, b)

    over the text rows :math:`T_k` of class :math:`k` and its synonyms, a learned
    :math:`b`, "no object", and a learned :math:`s`.

    **The ensemble** (section 3.3). ``region_classifier`` names the same masks by the
    frozen CLIP. Of the softmaxes over classes :math:`p_i` of the head, without "no
    object", and :math:`r_i` of the region classifier,

    .. math:: c_{ik} \propto (1 - z'_{i\varnothing}) \,
        \mathrm{softmax}_k\bigl((1 - w_k) \log p_{ik} + w_k \log r_{ik}\bigr) + 10^{-8}

    where :math:`z'_{i\varnothing}` is the share of "no object" in the softmax over all,
    and :math:`w_k` the weight of the group of class :math:`k`. Logarithms are those of
    a log-softmax, so scores are finite where the official code divides by nothing.
    Without a region classifier :math:`c_i` is the head's softmax.

    Args:
        in_channels: of the four maps, fine to coarse.
        channels: of the query decoder and the mask features.
        embed_dim: length of a text row.
        pixel_decoder: ``'deformable'``, or ``'fpn'`` for a plain FPN, which is not the
            published method: "FC-CLIP-lite".
        pixel_channels: of the pixel decoder's maps; ``channels`` if None.
        pixel_decoder_cfg: further options of
            :class:`~.deformable.DeformablePixelDecoder`: ``num_layers``, ``num_heads``,
            ``num_points``, ``feedforward_channels``, ``dropout``.
        num_queries: masks per image.
        num_layers: of the query decoder; each is supervised, and so is its start.
        num_heads: of its attentions; it divides ``channels``.
        feedforward_channels: inside its layers.
        dropout: in its layers.
        num_groups: of the pixel decoder's group norms; it divides its channels.
        loss_masks: changes of :data:`LOSS_MASKS`, the published options of
            :class:`~zs3_mmseg.models.losses.MaskClassificationLoss`.
        region_classifier: config of a
            :class:`~zs3_mmseg.models.region_classifiers.LogitRegionClassifier`, such as
            ``ConvCLIPClassifier``, or one; only used in the test.
        seen_weight: :math:`w_k` of seen classes, 0..1; the defaults are published.
        unseen_weight: :math:`w_k` of unseen classes, 0..1.
        skip_uncovered: :math:`w_k = 0` for masks that cover no cell of the backbone's
            last map, as published for ResNets.
        in_index: which maps of the backbone are read, fine to coarse.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for weights outside 0..1, widths that heads or groups do not divide,
            and options of a pixel decoder that is not there.
    """

    #: Losses of points, weighed as published (appendix of arXiv 2308.02487).
    LOSS_MASKS: dict[str, Any] = dict(
        class_weight=2.0,
        mask_weight=5.0,
        dice_weight=5.0,
        mask_loss='bce',
        num_points=12544,
    )

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        *,
        embed_dim: int,
        pixel_decoder: str = 'deformable',
        pixel_channels: int | None = None,
        pixel_decoder_cfg: ConfigType | None = None,
        num_queries: int = 250,
        num_layers: int = 9,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.0,
        num_groups: int = 32,
        loss_masks: ConfigType | None = None,
        region_classifier: ConfigType | LogitRegionClassifier | None = None,
        seen_weight: float = 0.4,
        unseen_weight: float = 0.8,
        skip_uncovered: bool = False,
        in_index: Sequence[int] = (0, 1, 2, 3),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            embed_dim=embed_dim,
            loss_masks={**self.LOSS_MASKS, **(loss_masks or {})},
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
        self.skip_uncovered = skip_uncovered
        kinds = dict(deformable=DeformablePixelDecoder, fpn=FPNPixelDecoder)
        kind = kinds[choose('pixel_decoder', pixel_decoder, kinds)]
        if pixel_decoder_cfg and kind is FPNPixelDecoder:
            raise ValueError(
                'pixel_decoder_cfg holds options of the deformable decoder, and '
                "pixel_decoder='fpn' has none: leave it out"
            )
        self.pixel_decoder = kind(
            in_channels,
            pixel_channels,
            channels,
            num_groups=num_groups,
            **(pixel_decoder_cfg or {}),
        )
        self.query_decoder = MaskedQueryDecoder(
            [pixel_channels] * (len(in_channels) - 1),
            channels,
            channels,
            num_queries=num_queries,
            num_layers=num_layers,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout,
        )
        self.pool_projection = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels)
        )
        self.class_embed = MLP(channels, channels, channels, embed_dim)
        self.no_object = nn.Parameter(torch.empty(1, embed_dim))
        self.logit_scale = nn.Parameter(torch.empty(()))
        self._draw()

    def _draw(self) -> None:
        self.pixel_decoder.draw()
        self.query_decoder.draw()
        nn.init.normal_(self.no_object)
        nn.init.constant_(self.logit_scale, math.log(1 / 0.07))

    def _found(
        self, found: Tensor, masks: Tensor, features: Tensor, queries: ClassQueries
    ) -> Tensor:
        """Return class logits ``(N, M, K + 1)`` of queries with masks."""
        seen = self.pool_projection(pooled(features, masks))
        directions = F.normalize(self.class_embed(seen + found), dim=-1)
        none = F.normalize(self.no_object, dim=-1)
        return self._text_logits(directions, queries, none, self.scale())

    def scale(self) -> Tensor:
        """Return the factor on cosines."""
        return self.logit_scale.exp().clamp(max=MAX_SCALE)

    def find(
        self, inputs: Sequence[Tensor], queries: ClassQueries, every: bool
    ) -> QueryMasks:
        """Return what the queries of every layer, or of the last one, found."""
        features, maps = self.pixel_decoder(self._transform_inputs(inputs))
        return self.decoded(maps, features, queries, every)

    def decoded(
        self,
        maps: Sequence[Tensor],
        features: Tensor,
        queries: ClassQueries,
        every: bool,
    ) -> QueryMasks:
        """Return what queries find in what the pixel decoder made.

        Args:
            maps: ``(N, pixel_channels, h, w)``, coarse to fine.
            features: mask features ``(N, channels, h, w)``.
            queries: rows of the classes.
            every: of every layer, ``L + 1`` times, or of the last one.
        """
        layers = self.query_decoder(maps, features)
        if every:
            pairs = [*layers]
        else:
            for last in layers:  # the others are not kept
                pairs = [last]
        logits = [self._found(own, m, features, queries) for own, m in pairs]
        return QueryMasks(torch.stack(logits), torch.stack([m for _, m in pairs]))

    def joined(
        self, class_logits: Tensor, looked: Tensor, seen: Tensor, regions: Regions
    ) -> Tensor:
        """Return the ensemble's class scores ``(N, M, K)``."""
        scores = self.shares(class_logits, looked, seen, regions) + EPSILON
        return (scores / scores.sum(dim=-1, keepdim=True))[..., :-1]

    def shares(
        self, class_logits: Tensor, looked: Tensor, seen: Tensor, regions: Regions
    ) -> Tensor:
        """Return the ensemble with "no object" last, ``(N, M, K + 1)``, of sum 1."""
        weights = self._weights(seen).to(class_logits)
        if self.skip_uncovered:
            assert regions.mask_logits is not None
            inside = cells_inside(regions.mask_logits, regions.maps[-1].shape[-2:])
            weights = weights * inside.any(dim=2, keepdim=True)
        own = class_logits[..., :-1].log_softmax(dim=-1)
        other = looked.float().log_softmax(dim=-1)
        both = ((1 - weights) * own + weights * other).softmax(dim=-1)
        none = class_logits.softmax(dim=-1)[..., -1:]
        return torch.cat([both * (1 - none), none], dim=-1)
