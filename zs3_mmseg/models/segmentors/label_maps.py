"""From class scores to label maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zs3_mmseg.models.decode_heads.running_argmax import RunningArgmax


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
        running = RunningArgmax()
        running.update(scores)
        return self.of_running(running)

    def of_running(self, running: RunningArgmax) -> Tensor:
        """Return the label map ``(1, H, W)`` of all classes taken in, at least one."""
        found = running.best()
        assert found is not None
        return self.labels(*found, running.num_classes)[None]


class GroupArgmax:
    """The best seen and the best unseen class of each pixel, from slices of classes.

    That is all a metric needs to let one group compete alone, or to shift the scores
    of seen classes by any constant.

    Args:
        seen_mask: which of the K classes are seen, ``(K,)`` bool.
    """

    def __init__(self, seen_mask: Tensor) -> None:
        self._members = (seen_mask, ~seen_mask)
        self._running = (RunningArgmax(), RunningArgmax())

    def update(self, scores: Tensor, classes: slice) -> None:
        """Take in the scores ``(K', H, W)`` of a slice of the classes."""
        for members, running in zip(self._members, self._running, strict=True):
            inside = members[classes].to(scores.device).nonzero().flatten()
            if len(inside):
                running.update(scores[inside], inside + classes.start)

    def best(self) -> tuple[Tensor, Tensor]:
        """Return the best scores ``(2, H, W)`` and their classes ``(2, H, W)`` long.

        Seen first, then unseen; a group without classes has score -inf and class -1.
        """
        found = [running.best() for running in self._running]
        scores, classes = next(pair for pair in found if pair is not None)
        nothing = (torch.full_like(scores, -torch.inf), torch.full_like(classes, -1))
        pairs = [nothing if pair is None else pair for pair in found]
        return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])
