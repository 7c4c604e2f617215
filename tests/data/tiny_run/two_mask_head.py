"""A head that finds two masks first and names them afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.decode_heads import ZeroShotHead
from zs3_mmseg.models.decode_heads.mask_scores import MaskScores
from zs3_mmseg.models.decode_heads.zero_shot_head import reduce_queries


@MODELS.register_module()
class TwoMaskHead(ZeroShotHead):
    """Two masks, each named by the features below it."""

    score_kind: Any = 'mask_sum'

    def __init__(
        self, in_channels: int, *, embed_dim: int, num_masks: int = 2, **kwargs: Any
    ) -> None:
        self.options = {
            k: kwargs.pop(k) for k in ('mask_kind', 'output') if k in kwargs
        }
        super().__init__(in_channels, **kwargs)
        self.num_masks = num_masks
        self.find = nn.Conv2d(in_channels, 2, 1)
        self.name = nn.Linear(in_channels, embed_dim)

    def query_logits(self, inputs: Sequence[Tensor], *, queries: Any) -> MaskScores:
        maps = self._transform_inputs(inputs)
        masks = self.find(maps)[:, : self.num_masks]
        weights = masks.sigmoid().flatten(2)  # (N, M, hw)
        share = weights / weights.sum(dim=2, keepdim=True)
        pooled = share @ maps.flatten(2).transpose(1, 2)  # (N, M, C)
        logits = (self.name(pooled) @ queries.embeddings.T).transpose(1, 2)
        per_class = reduce_queries(logits, queries.queries_per_class, 'max')
        scores = per_class.softmax(dim=1).transpose(1, 2)  # (N, M, K)
        options = dict(self.options)
        if options.get('mask_kind') == 'prob':
            masks = (masks > 0).float()
        if options.get('output') == 'log_mean':
            options['weights'] = weights.mean(dim=2)
            rows = queries.embeddings[: queries.num_classes]
            options['fallback'] = torch.einsum('nchw,kc->nkhw', maps, rows)
        return MaskScores(masks, scores, **options)

    def training_outputs(self, inputs: Sequence[Tensor], *, queries: Any) -> Tensor:
        found = self.query_logits(inputs, queries=queries)
        masks, scores = found.masks.sigmoid(), found.class_scores
        sums = torch.einsum('nmk,nmhw->nkhw', scores, masks)
        return sums.clamp(min=1e-6).log()
