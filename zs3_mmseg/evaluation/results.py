"""All that an evaluation found, before it is shown or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.evaluation.boundary import boundary_scores
from zs3_mmseg.evaluation.confusions import Confusions, top_confusions
from zs3_mmseg.evaluation.gamma_sweep import SeenUnseenCurve
from zs3_mmseg.evaluation.scores import class_scores


@dataclass(frozen=True)
class ZeroShotResults:
    """Counts and scores of one evaluation.

    Attributes:
        split: classes in label order, and who is unseen.
        images: how many images were counted.
        absent: the rule for classes without pixels, ``'nan'`` or ``'zero'``.
        confusion: pixel counts, rows = truth, all classes competing, (K, K).
        gzsl: what :func:`~zs3_mmseg.evaluation.scores.gzsl_scores` returns.
        groups: mode (``'zsl_only'``, ``'seen_only'``) to what
            :func:`~zs3_mmseg.evaluation.scores.group_scores` returns.
        curve: scores over the shifts of calibrated stacking, if they were swept.
        boundary_iou: boundary IoU of each class, (K,), in [0, 1] or NaN, if wanted.
    """

    split: ZeroShotSplit
    images: int
    absent: str
    confusion: np.ndarray
    gzsl: Mapping[str, float]
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    curve: SeenUnseenCurve | None = None
    boundary_iou: np.ndarray | None = None

    def per_class(self) -> tuple[np.ndarray, np.ndarray]:
        """Return IoU and accuracy of each class, (K,) each, in [0, 1] or NaN."""
        return class_scores(self.confusion, self.absent)

    def generalised(self) -> dict[str, float]:
        """Return all scores for which all classes compete, in [0, 1] or NaN."""
        if self.boundary_iou is None:
            return dict(self.gzsl)
        members = self.split.seen_indices, self.split.unseen_indices
        return {**self.gzsl, **boundary_scores(self.boundary_iou, *members)}

    def confusions(self) -> list[Confusions]:
        """Return what each unseen class was taken for."""
        split = self.split
        return top_confusions(self.confusion, split.seen_indices, split.unseen_indices)
