"""Masks of Segment Anything, through the models of ``transformers``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.utils.cache import content_hash
from zs3_mmseg.utils.transformers_models import load_pretrained, transformers_module

from .proposer import Proposals, Proposer, at_size, weights_hash


@MODELS.register_module()
class SAMProposer(Proposer):
    """Prompts SAM or SAM 2 with a grid of points and keeps the masks it is sure of.

    The automatic mode of SAM (arXiv 2304.02643, appendix B) as the pipeline
    ``mask-generation`` of ``transformers`` runs it: each point of a grid gives three
    masks; those with a low predicted IoU go, and those that change much when the
    threshold of their logits is shifted (their stability is the IoU of the mask at
    +1 and at -1); of masks whose boxes overlap the surest stays. Nested parts remain.
    Results depend on ``points_per_side``, and take seconds per image; compute them once
    (they are cached), or store them in files and use ``MaskFileProposer``.

    Needs ``transformers``, the extra ``[masks]``. Weights are loaded when the first
    image comes, as masks are kept under their hash.

    Args:
        weights: a repository of the hub, such as ``'facebook/sam-vit-base'`` or
            ``'facebook/sam2.1-hiera-tiny'``, or a folder as ``save_pretrained`` writes
            it, with the model and its image processor.
        points_per_side: of the grid, >= 1.
        points_per_batch: how many points run at once, >= 1.
        iou_thr: least predicted IoU, in 0..1.
        stability_thr: least stability, in 0..1.
        nms_thr: least IoU of boxes of which only one stays, in 0..1.
        max_masks: how many masks are kept, the surest ones, >= 1.
        device: where SAM runs.
        cache: see :class:`Proposer`.
        kept_images: see :class:`Proposer`.

    Raises:
        ModuleNotFoundError: without ``transformers``.
        ValueError: for numbers out of range.
    """

    def __init__(
        self,
        weights: str | Path = 'facebook/sam-vit-base',
        *,
        points_per_side: int = 32,
        points_per_batch: int = 64,
        iou_thr: float = 0.88,
        stability_thr: float = 0.92,
        nms_thr: float = 0.7,
        max_masks: int = 200,
        device: str = 'cpu',
        cache: bool = True,
        kept_images: int = 8,
    ) -> None:
        super().__init__(cache=cache, kept_images=kept_images)
        if min(points_per_side, points_per_batch, max_masks) < 1:
            raise ValueError(
                'SAMProposer needs points_per_side, points_per_batch and max_masks >= '
                f'1, got {points_per_side}, {points_per_batch} and {max_masks}'
            )
        if not all(0 <= value <= 1 for value in (iou_thr, stability_thr, nms_thr)):
            raise ValueError(
                'SAMProposer needs iou_thr, stability_thr and nms_thr in 0..1, got '
                f'{iou_thr}, {stability_thr} and {nms_thr}'
            )
        transformers_module('SAMProposer')
        self.weights = weights
        self.points_per_side = points_per_side
        self.points_per_batch = points_per_batch
        self.iou_thr = iou_thr
        self.stability_thr = stability_thr
        self.nms_thr = nms_thr
        self.max_masks = max_masks
        self.device = device
        self._pipeline: Any = None
        self._fingerprint: str | None = None

    @property
    def pipeline(self) -> Any:
        """The pipeline, built when first asked for."""
        if self._pipeline is None:
            key = 'SAMProposer.weights'
            model = load_pretrained('AutoModelForMaskGeneration', self.weights, key)
            processor = load_pretrained('AutoImageProcessor', self.weights, key)
            self._pipeline = transformers_module('SAMProposer').pipeline(
                'mask-generation',
                model=model.eval(),
                image_processor=processor,
                device=self.device,
            )
        return self._pipeline

    @property
    def fingerprint(self) -> str:
        """Hash of the options and of the weights."""
        if self._fingerprint is None:
            options = (self.points_per_side, self.iou_thr, self.stability_thr)
            self._fingerprint = content_hash(
                *map(str, (*options, self.nms_thr, self.max_masks)),
                weights_hash(self.pipeline.model),
                str(self.pipeline.image_processor),
            )
        return self._fingerprint

    @torch.no_grad()
    def propose(self, image: Tensor) -> Proposals:
        """Return masks ``(M, H, W)`` bool and predicted IoUs ``(M,)``."""
        size = (image.shape[1], image.shape[2])
        picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
        if 'longest_edge' not in self.pipeline.image_processor.size:
            # SAM 2 sees pictures stretched to a square; the pipeline places its grid
            # as SAM needs it, which leaves a part of the longer side without points.
            picture = picture.resize([max(size)] * 2, Image.Resampling.BILINEAR)
        found = self.pipeline(
            picture,
            points_per_crop=self.points_per_side,
            points_per_batch=self.points_per_batch,
            pred_iou_thresh=self.iou_thr,
            stability_score_thresh=self.stability_thr,
            crops_nms_thresh=self.nms_thr,
        )
        scores = torch.as_tensor(found['scores']).float().cpu().clamp(0, 1)
        best = scores.argsort(descending=True, stable=True).tolist()
        masks = [torch.zeros(0, *size, dtype=torch.bool)]
        kept: list[int] = []
        for index in best:
            mask = torch.as_tensor(np.asarray(found['masks'][index])).bool()
            mask = at_size(mask[None], size)
            if mask.any() and len(kept) < self.max_masks:
                masks.append(mask)
                kept.append(index)
        return torch.cat(masks), scores[kept]
