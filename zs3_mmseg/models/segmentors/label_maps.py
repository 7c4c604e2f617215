"""From class scores to label maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelRule:
    """How the best class of a pixel becomes its label.

    Attributes:
        score_thr: with a single class, pixels that score at least this are 1, the
            others 0: a mask. With more classes it is not used.
        prob_thd: with more classes, pixels whose best score is below it get
            ``bg_index``; None: off.
        bg_index: index of the background class.
    """

    score_thr: float
    prob_thd: float | None = None
    bg_index: int = 0

    def labels(self, best: Tensor, index: Tensor, num_classes: int) -> Tensor:
        """Return label maps.

        Args:
            best: ``(H, W)``, largest score of each pixel.
            index: ``(H, W)`` long, its class.
            num_classes: how many classes there were to choose from.

        Returns:
            ``(H, W)`` long.
        """
        if num_classes == 1:
            return (best >= self.score_thr).long()
        if self.prob_thd is None:
            return index
        return index.masked_fill(best < self.prob_thd, self.bg_index)

    def of_scores(self, scores: Tensor) -> Tensor:
        """Return the label map ``(1, H, W)`` of scores ``(K, H, W)``."""
        best, index = scores.max(dim=0)
        return self.labels(best, index, len(scores))[None]


class RunningArgmax:
    """The best class of each pixel, over classes that come in slices.

    Of equal scores the first wins, as in ``argmax`` over all of them at once.
    """

    def __init__(self) -> None:
        self._best: Tensor | None = None
        self._index: Tensor | None = None
        self._num_classes = 0

    def update(self, scores: Tensor) -> None:
        """Take in the scores ``(K', H, W)`` of the next classes."""
        best, index = scores.max(dim=0)
        index = index + self._num_classes
        if self._best is not None and self._index is not None:
            better = best > self._best
            best = torch.where(better, best, self._best)
            index = torch.where(better, index, self._index)
        self._best, self._index = best, index
        self._num_classes += len(scores)

    def labels(self, rule: LabelRule) -> Tensor:
        """Return the label map ``(1, H, W)`` of all classes taken in."""
        assert self._best is not None
        assert self._index is not None
        return rule.labels(self._best, self._index, self._num_classes)[None]
