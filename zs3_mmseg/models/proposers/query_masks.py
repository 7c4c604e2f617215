"""Masks of the queries of a trained model, such as ZegFormer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.utils.cache import content_hash
from zs3_mmseg.utils.checkpoint import load_into, safe_load

from .proposer import Proposals, Proposer, weights_hash


@MODELS.register_module()
class QueryMaskProposer(Proposer):
    """Takes the masks of a model that finds masks first, and leaves its names.

    The model sees the whole image; where the sum of its class scores for a mask is
    small ("no object"), the score of the mask is.

    Args:
        model: config of a ``ZeroShotEncoderDecoder`` whose head returns
            :class:`~zs3_mmseg.models.decode_heads.MaskScores`, such as
            ``ZegFormerHead``.
        checkpoint: its weights, a local file; None: as its config makes it.
        threshold: pixels above it are in the mask, in 0..1.
        min_score: masks whose class scores sum to less are left out, in 0..1.
        cache: see :class:`Proposer`.
        kept_images: see :class:`Proposer`.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: for numbers out of range, or a head without masks.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        checkpoint: str | Path | None = None,
        *,
        threshold: float = 0.5,
        min_score: float = 0.0,
        cache: bool = True,
        kept_images: int = 8,
    ) -> None:
        super().__init__(cache=cache, kept_images=kept_images)
        if not (0 <= threshold <= 1 and 0 <= min_score <= 1):
            raise ValueError(
                'QueryMaskProposer.threshold and min_score must be in 0..1, got '
                f'{threshold} and {min_score}'
            )
        self.threshold = threshold
        self.min_score = min_score
        self.model: Any = MODELS.build(dict(model))
        if self.model.score_kind != 'mask_sum':
            raise ValueError(
                f'QueryMaskProposer.model: {type(self.model.decode_head).__name__} '
                'finds no masks: use a head that returns MaskScores'
            )
        if checkpoint is not None:
            load_into(self.model, safe_load(checkpoint), what=str(checkpoint))
        else:
            self.model.init_weights()
        self.model.eval().requires_grad_(False)
        self._fingerprint = content_hash(
            str(threshold), str(min_score), weights_hash(self.model)
        )

    @property
    def fingerprint(self) -> str:
        """Hash of the options and of the model."""
        return self._fingerprint

    @torch.no_grad()
    def propose(self, image: Tensor) -> Proposals:
        """Return masks ``(M, H, W)`` bool and scores ``(M,)``."""
        size = (image.shape[1], image.shape[2])
        sample = SegDataSample(
            metainfo=dict(ori_shape=size, img_shape=size, pad_shape=size)
        )
        data = dict(inputs=[image.flip(0).cpu()], data_samples=[sample])  # BGR
        data = self.model.data_preprocessor(data, False)
        masks, classes = self.model.found_masks(
            data['inputs'], [each.metainfo for each in data['data_samples']]
        )
        inside = masks[0, :, : size[0], : size[1]] > self.threshold
        scores = classes[0].sum(dim=-1).clamp(0, 1)
        kept = (scores >= self.min_score) & inside.flatten(1).any(dim=1)
        return inside[kept], scores[kept]
