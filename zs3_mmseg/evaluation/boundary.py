"""Boundary IoU: the IoU of what lies close to the outline of a class.

Defined in arXiv 2103.16562 (CVPR 2021), equation 3: of the true and of the predicted
mask only the pixels within some distance of their own outline are compared, which large
insides cannot outvote. The edge of the image is part of the outline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zs3_mmseg.evaluation.counters import ImageMaps, PixelCounts, require_range
from zs3_mmseg.evaluation.scores import area_scores, harmonic_mean, mean_of_present

# A label that no class has: beyond the edge of the image, and where truth is ignored.
_OUTSIDE = -1


def check_ratio(ratio: float) -> float:
    """Return the width of the band as a share of the image's diagonal."""
    if not 0 < ratio < 1:
        raise ValueError(
            'boundary_ratio is a share of the diagonal of the image, between 0 and 1 '
            f'(0.02 in the paper), got {ratio!r}'
        )
    return float(ratio)


class BoundaryCounter:
    """Counts, for each class, the pixels near its outlines.

    Ignored pixels belong to no mask, neither to the true nor to the predicted one.
    """

    needs_groups = False

    def __init__(self, ratio: float, num_classes: int, ignore_index: int) -> None:
        self._ratio = ratio
        self._num_classes = num_classes
        self._ignore_index = ignore_index
        self._shape = (3, num_classes)
        self.size = math.prod(self._shape)

    def count(self, maps: ImageMaps) -> PixelCounts:
        """Count hits, true and predicted pixels of each class's band."""
        device = maps.prediction.device
        truth, prediction = maps.truth.to(device, torch.int32), maps.prediction.int()
        ignored = truth == self._ignore_index
        distance = max(1, round(self._ratio * math.hypot(*truth.shape)))
        bands = []
        for labels in (truth, prediction):
            labels = labels.masked_fill(ignored, _OUTSIDE)
            require_range(labels[~ignored], self._num_classes, 'a class')
            inside = _surrounded(labels, distance)
            bands.append(labels.masked_fill(inside, _OUTSIDE))
        hits = bands[0].masked_fill(bands[0] != bands[1], _OUTSIDE)
        total = torch.cat([self._table(labels) for labels in (hits, *bands)])
        used = total.nonzero().flatten()
        return PixelCounts(used.cpu().numpy(), total[used].cpu().numpy())

    def _table(self, labels: Tensor) -> Tensor:
        # Pixels of no class are counted in a cell of their own, which is cut off.
        counts = torch.bincount(labels.flatten() + 1, minlength=self._num_classes + 1)
        return counts[1:]

    def iou(self, counts: np.ndarray, absent: str = 'nan') -> np.ndarray:
        """Return the boundary IoU of each class, (K,), within [0, 1] or NaN."""
        hits, truth, predicted = counts.reshape(self._shape)
        return area_scores(hits, truth, predicted, absent)[0]


def _surrounded(labels: Tensor, distance: int) -> Tensor:
    """Return where all pixels of the square around a pixel have its label, (H, W).

    Args:
        labels: (H, W), at least 0, or :data:`_OUTSIDE`.
    """
    padded = F.pad(labels, (distance,) * 4, value=_OUTSIDE)
    side = 2 * distance + 1
    # A square has one label if no two neighbours in it differ.
    beside = _window_sums(padded[:, 1:] != padded[:, :-1], side, side - 1)
    below = _window_sums(padded[1:] != padded[:-1], side - 1, side)
    return (beside + below) == 0


def _window_sums(mask: Tensor, height: int, width: int) -> Tensor:
    """Count true pixels in every window, (H - height + 1, W - width + 1)."""
    total = mask.cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    total = F.pad(total, (1, 0, 1, 0))
    rows = total[height:] - total[:-height]
    return rows[:, width:] - rows[:, :-width]


def boundary_scores(
    iou: np.ndarray, seen: Sequence[int], unseen: Sequence[int]
) -> dict[str, float]:
    """Return ``mBIoU``, ``mBIoU_seen``, ``mBIoU_unseen`` and ``hBIoU``.

    Args:
        iou: boundary IoU of each class, (K,).
    """
    means = {
        'mBIoU': mean_of_present(iou),
        'mBIoU_seen': mean_of_present(iou[list(seen)]),
        'mBIoU_unseen': mean_of_present(iou[list(unseen)]),
    }
    harmonic = harmonic_mean(means['mBIoU_seen'], means['mBIoU_unseen'])
    return means | {'hBIoU': harmonic}
