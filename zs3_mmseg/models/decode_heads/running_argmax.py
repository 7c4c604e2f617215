"""The best class of each pixel, when there are never maps of all classes."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningArgmax:
    """The best class of each pixel, over classes that come in slices.

    Of equal scores the first wins, as in ``argmax`` over all of them at once.

    Attributes:
        num_classes: how many classes have been taken in.
    """

    def __init__(self) -> None:
        self.num_classes = 0
        self._best: tuple[Tensor, Tensor] | None = None

    def update(self, scores: Tensor, classes: Tensor | None = None) -> None:
        """Take in the scores of the next classes.

        Args:
            scores: ``(K', H, W)``, at least one class.
            classes: ``(K',)`` long, what they are called, ascending; by default the
                numbers that follow those of the classes taken in so far.
        """
        best, index = scores.max(dim=0)
        index = index + self.num_classes if classes is None else classes[index]
        if self._best is not None:
            known, known_index = self._best
            better = best > known
            best = torch.where(better, best, known)
            index = torch.where(better, index, known_index)
        self._best = best, index
        self.num_classes += len(scores)

    def best(self) -> tuple[Tensor, Tensor] | None:
        """Return the best scores and their classes, ``(H, W)`` each; None if none."""
        return self._best
