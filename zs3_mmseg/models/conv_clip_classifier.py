"""Names for masks by the own head of a convolutional CLIP, as FC-CLIP has it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.backbones.open_clip_conv import is_resnet, require_convnext
from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.decode_heads.query_masks import cells_inside, pooled
from zs3_mmseg.models.decode_heads.zero_shot_head import reduce_queries, single_rows
from zs3_mmseg.models.region_classifiers import LogitRegionClassifier, Regions
from zs3_mmseg.models.towers import Architecture, load_clip

__all__ = ['ConvCLIPClassifier']

#: The largest factor on cosines, as CLIP was trained.
MAX_SCALE = 100.0


@MODELS.register_module()
class ConvCLIPClassifier(LogitRegionClassifier):
    r"""Shows the last map of a convolutional CLIP to its own head, mask by mask.

    The backbone is the rest of the same CLIP, ``OpenCLIPConvNeXt`` or
    ``OpenCLIPResNet``, and no picture runs through it again (FC-CLIP, arXiv 2308.02487,
    section 3.3). With the map's cells :math:`f_p` and those that a mask covers,
    resized bilinearly to the map, :math:`P`,

    .. math::
        v = \mathrm{head}\bigl(\textstyle\sum_{p \in P} f_p / (|P| + 10^{-8})\bigr)
        \text{ (ConvNeXt)}, \qquad
        v = \mathrm{attention}(\bar f + e_0,\ \{f_p + e_p\}_{p \in P}) \text{ (ResNet)},

    with the mean :math:`\bar f` of the whole map and CLIP's embeddings of positions,
    resized bilinearly. The logit of a class is :math:`\min(\tau, 100) \cos(v, t)` for
    the best of its rows :math:`t`, with the :math:`\tau` that CLIP learned. A mask that
    covers no cell sees a zero (ConvNeXt) or nothing but biases (ResNet).

    Weights are frozen, and part of checkpoints.

    Args:
        arch: see :func:`~zs3_mmseg.models.towers.load_clip`; that of the backbone.
        pretrained: the same.
        in_index: which of the head's maps is CLIP's last.
        trust: open a TorchScript archive of unknown origin.

    Raises:
        ConfigError: if the image tower is neither a ConvNeXt nor a ResNet.
    """

    needs_image = False
    logit_scale: Tensor

    def __init__(
        self,
        arch: str | Mapping[str, Any] | Architecture,
        pretrained: str | Path | None = None,
        *,
        in_index: int = -1,
        trust: bool = False,
    ) -> None:
        super().__init__()
        self.in_index = in_index
        clip = load_clip(arch, pretrained, trust=trust, need='image')
        visual = clip.model.visual
        self.head: nn.Module
        if is_resnet(visual):
            self.head = AttentionHead(copy.deepcopy(visual.attnpool))
        else:
            require_convnext(visual, clip.arch_name, type(self).__name__)
            self.head = MeanHead(
                copy.deepcopy(visual.trunk.head), copy.deepcopy(visual.head)
            )
        self.head.requires_grad_(False)
        self.register_buffer('logit_scale', clip.model.logit_scale.detach().clone())
        self.train(self.training)

    def train(self, mode: bool = True) -> ConvCLIPClassifier:
        """Switch the mode of nothing but this module."""
        super().train(mode)
        self.head.eval()
        return self

    def logits(self, regions: Regions, queries: ClassQueries) -> Tensor:
        """Return scaled cosines ``(N, M, K)``."""
        directions = F.normalize(self.features(regions), dim=-1)
        rows = single_rows(queries, type(self).__name__)
        logits = self.logit_scale.exp().clamp(max=MAX_SCALE) * directions @ rows.T
        return reduce_queries(
            logits.flatten(0, 1), queries.queries_per_class, 'max'
        ).unflatten(0, directions.shape[:2])

    @torch.no_grad()
    def features(self, regions: Regions) -> Tensor:
        """Return what CLIP's head makes of each region, ``(N, M, D)``, of any length.

        Masks are read as logits if those are known, else as they are.
        """
        masks = regions.mask_logits
        if masks is None:
            masks = regions.masks.float() - 0.5
        return self.head(regions.maps[self.in_index].float(), masks.float())


class MeanHead(nn.Module):
    """A ConvNeXt's head: norm and projection of the mean of a map."""

    def __init__(self, pool: nn.Module, project: nn.Module) -> None:
        super().__init__()
        self.pool = pool
        self.project = project

    def forward(self, maps: Tensor, masks: Tensor) -> Tensor:
        """Return vectors ``(N, M, D)`` of maps in masks, logits ``(N, M, h, w)``."""
        means = pooled(maps, masks)
        # A map of one cell for each mask.
        vectors = self.project(self.pool(means.flatten(0, 1)[..., None, None]))
        return vectors.unflatten(0, means.shape[:2])


class AttentionHead(nn.Module):
    """A ResNet's head: the mean of a map looks at its cells."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: Tensor, masks: Tensor) -> Tensor:
        """Return vectors ``(N, M, D)`` of maps in masks, logits ``(N, M, h, w)``."""
        pool = self.pool
        first, others = pool.positional_embedding.split(
            [1, len(pool.positional_embedding) - 1]
        )
        side = round(len(others) ** 0.5)
        positions = F.interpolate(
            others.T.unflatten(1, (side, side))[None],
            size=maps.shape[-2:],
            mode='bilinear',
            align_corners=False,
        )
        inside = cells_inside(masks, maps.shape[-2:])  # (N, M, hw)
        asked = maps.flatten(2).mean(dim=2)[:, None] + first  # (N, 1, C)
        cells = (maps + positions).flatten(2).transpose(1, 2)  # (N, hw, C)

        def heads(values: Tensor) -> Tensor:
            return values.unflatten(2, (pool.num_heads, -1)).transpose(1, 2)

        query, key = heads(pool.q_proj(asked)), heads(pool.k_proj(cells))
        seen = F.scaled_dot_product_attention(
            query.expand(-1, -1, inside.shape[1], -1),
            key,
            heads(pool.v_proj(cells)),
            attn_mask=inside[:, None],
        )
        # Nothing to see is 0, whatever torch makes of it.
        seen = seen.masked_fill(~inside.any(dim=2)[:, None, :, None], 0)
        return pool.c_proj(seen.transpose(1, 2).flatten(2))
