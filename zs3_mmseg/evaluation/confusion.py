"""Count pixels of (truth, prediction) pairs, one image at a time."""

from __future__ import annotations

from dataclasses import dataclass

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
        num_classes: K.
        ignore_index: label of pixels that don't count.

    Returns:
        The non-zero cells of the image's confusion matrix, on the CPU.

    Raises:
        ValueError: if the sizes differ or a value is out of range.
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
    """Check that integers lie in ``0..num_classes-1``.

    Args:
        labels: a map of any shape.
        num_classes: K.
        what: what a value should be, for the message.

    Raises:
        ValueError: naming up to eight of the wrong values.
    """
    if not labels.numel():
        return
    low, high = torch.aminmax(labels)
    if low < 0 or high >= num_classes:
        wrong = labels[(labels < 0) | (labels >= num_classes)].unique().tolist()
        raise ValueError(f'label values {wrong[:8]} are not {what}')
