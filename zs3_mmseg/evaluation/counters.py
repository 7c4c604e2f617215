"""Everything that is counted for an image, as one flat vector of pixel counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from zs3_mmseg.evaluation.confusion import PixelCounts, count_pixels


@dataclass(frozen=True)
class GroupBest:
    """The best seen and the best unseen class of each pixel.

    Attributes:
        scores: their scores, (2, H, W), seen first.
        classes: their indices, (2, H, W), integers.
    """

    scores: Tensor
    classes: Tensor


@dataclass(frozen=True)
class ImageMaps:
    """What a metric knows of one image.

    Attributes:
        prediction: predicted classes, (H, W).
        truth: labels, (H, W).
        groups: best class of each group; None if no counter asks for it.
    """

    prediction: Tensor
    truth: Tensor
    groups: GroupBest | None = None


class Counter(Protocol):
    """Counts one kind of thing.

    Attributes:
        size: how many cells it has.
        needs_groups: whether it reads :attr:`ImageMaps.groups`.
    """

    size: int
    needs_groups: bool

    def count(self, maps: ImageMaps) -> PixelCounts:
        """Count one image; cells are positions in ``0..size-1``."""


class ConfusionCounter:
    """The confusion matrix of the predictions: all classes compete.

    Args:
        num_classes: K.
        ignore_index: label of pixels that don't count.
    """

    needs_groups = False

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self._num_classes = num_classes
        self._ignore_index = ignore_index
        self.size = num_classes**2

    def count(self, maps: ImageMaps) -> PixelCounts:
        """Count (truth, prediction) pairs."""
        return count_pixels(
            maps.prediction, maps.truth, self._num_classes, self._ignore_index
        )


class GroupCounter:
    """The confusion matrix of one group alone.

    Only its classes compete, and only pixels whose truth is in the group count.

    Args:
        group: 0 for the seen classes, 1 for the unseen ones.
        members: indices of its classes.
        num_classes: K.
        ignore_index: label of pixels that don't count.
    """

    needs_groups = True

    def __init__(
        self, group: int, members: Sequence[int], num_classes: int, ignore_index: int
    ) -> None:
        self._group = group
        self._num_classes = num_classes
        self._ignore_index = ignore_index
        self._inside = torch.zeros(max(num_classes, ignore_index) + 1, dtype=torch.bool)
        self._inside[list(members)] = True
        self.size = num_classes**2

    def count(self, maps: ImageMaps) -> PixelCounts:
        """Count (truth, best class of the group) pairs of the group's pixels."""
        assert maps.groups is not None
        truth = maps.truth.int()
        inside = self._inside.to(truth.device).index_select(0, truth.flatten())
        outside = ~inside.view_as(truth)
        return count_pixels(
            maps.groups.classes[self._group],
            truth.masked_fill(outside, self._ignore_index),
            self._num_classes,
            self._ignore_index,
        )


class Counters:
    """Several counters, whose cells follow one another in one vector.

    Args:
        counters: by name.
    """

    def __init__(self, **counters: Counter) -> None:
        self._counters = counters
        sizes = [counter.size for counter in counters.values()]
        ends = np.cumsum(sizes).tolist()
        starts = [0, *ends[:-1]]
        self._blocks = {
            name: slice(start, end)
            for name, start, end in zip(counters, starts, ends, strict=True)
        }
        self.size: int = ends[-1]
        self.needs_groups = any(c.needs_groups for c in counters.values())

    def count(self, maps: ImageMaps) -> PixelCounts:
        """Count everything in one image.

        Raises:
            ValueError: if sizes differ or a label is out of range.
        """
        parts = [
            (self._blocks[name].start, counter.count(maps))
            for name, counter in self._counters.items()
        ]
        return PixelCounts(
            np.concatenate([part.cells + start for start, part in parts]),
            np.concatenate([part.counts for _, part in parts]),
        )

    def block(self, total: np.ndarray, name: str) -> np.ndarray:
        """Return the cells of one counter out of the summed vector."""
        return total[self._blocks[name]]
