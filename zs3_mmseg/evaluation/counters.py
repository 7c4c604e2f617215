"""What is counted for an image, as one flat vector of pixel counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

# Below this number of classes every cell's number fits 32 bits, which counts twice as
# fast.
_NARROW_CLASSES = 40_000


@dataclass
class PixelCounts:
    """Some cells of a confusion matrix, the others being zero.

    Attributes:
        cells: flat positions in the (K, K) matrix, rows = truth, (M,), int64; a slice
            for a full matrix.
        counts: pixels in each of them, (M,), int64.
        images: how many images were counted.
    """

    cells: np.ndarray | slice
    counts: np.ndarray
    images: int = 1

    def add_to(self, confusion: np.ndarray) -> None:
        """Add the pixels to a contiguous matrix of int64, (K, K) or flat, in place."""
        confusion.reshape(-1)[self.cells] += self.counts


def count_pixels(
    prediction: Tensor, truth: Tensor, num_classes: int, ignore_index: int
) -> PixelCounts:
    """Count the pixels of one image whose truth is not ignored.

    Args:
        prediction: predicted classes, (H, W), integers in 0..K-1.
        truth: labels, (H, W), integers in 0..K-1 or ``ignore_index``.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f'the prediction is {tuple(prediction.shape)}, the label map '
            f'{tuple(truth.shape)}'
        )
    kind = torch.int32 if num_classes < _NARROW_CLASSES else torch.int64
    ignored = truth.to(prediction.device) == ignore_index
    rows = truth.to(prediction.device, kind).masked_fill(ignored, 0)
    columns = prediction.to(kind)
    require_range(rows, num_classes, f'a class or ignore ({ignore_index})')
    require_range(columns, num_classes, 'a class, in the prediction')
    # Ignored pixels are counted in a cell of their own, which is then cut off.
    cells = (rows * num_classes + columns).masked_fill_(ignored, num_classes**2)
    counts = torch.bincount(cells.flatten(), minlength=num_classes**2 + 1)[:-1]
    used = counts.nonzero().flatten()
    return PixelCounts(used.cpu().numpy(), counts[used].cpu().numpy())


def require_range(labels: Tensor, num_classes: int, what: str) -> None:
    """Check that integers lie in ``0..num_classes-1``."""
    if not labels.numel():
        return
    low, high = torch.aminmax(labels)
    if low < 0 or high >= num_classes:
        wrong = labels[(labels < 0) | (labels >= num_classes)].unique().tolist()
        raise ValueError(f'label values {wrong[:8]} are not {what}')


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
    """The confusion matrix of the predictions: all classes compete."""

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
    """Several counters, whose cells follow one another in one vector."""

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
        """Count everything in one image."""
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
