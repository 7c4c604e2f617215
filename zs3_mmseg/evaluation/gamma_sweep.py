"""Calibrated stacking for many shifts at once: the seen-unseen curve and its area.

A shift gamma is taken off the scores of all seen classes before the best class is
chosen (arXiv 1605.04253, section 3). Whether a pixel's label is its best seen or its
best unseen class depends on one number, the difference of their scores; so each pixel
is counted once, in the interval of gammas that its difference falls into.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zs3_mmseg.evaluation.counters import ImageMaps, PixelCounts, require_range
from zs3_mmseg.evaluation.scores import area_scores, harmonic_mean, mean_of_present


def check_gammas(gammas: Iterable[float]) -> tuple[float, ...]:
    """Return the shifts in ascending order."""
    ordered = tuple(sorted(float(gamma) for gamma in gammas))
    if not ordered or not all(math.isfinite(gamma) for gamma in ordered):
        raise ValueError(f'gamma_sweep must be finite numbers, got {list(ordered)}')
    if len(set(ordered)) < len(ordered):
        raise ValueError(f'gamma_sweep lists a number twice: {list(ordered)}')
    return ordered


class GammaCounter:
    """Counts hits and predictions of each class in each interval of gammas.

    Interval ``b`` holds the pixels that are labelled seen for the first ``b`` gammas
    and unseen for the others.

    Args:
        gammas: shifts in ascending order, (G,).
    """

    needs_groups = True

    def __init__(
        self, gammas: Sequence[float], num_classes: int, ignore_index: int
    ) -> None:
        self.gammas = tuple(gammas)
        self._num_classes = num_classes
        self._ignore_index = ignore_index
        self._shape = (2, len(self.gammas) + 1, num_classes)
        self.size = math.prod(self._shape)

    def count(self, maps: ImageMaps) -> PixelCounts:
        """Count one image."""
        assert maps.groups is not None
        ignored = maps.truth == self._ignore_index
        truth = maps.truth.int()
        seen, unseen = maps.groups.classes.int()
        for classes in (seen, unseen):
            require_range(classes, self._num_classes, 'a class, in group_best')
        interval = self._intervals(maps.groups.scores, seen < unseen)
        predicted = self._table(interval, seen, ignored)
        predicted += self._table(interval, unseen, ignored)
        wrong = (seen != truth) & (unseen != truth)
        total = torch.cat([self._table(interval, truth, ignored | wrong), predicted])
        used = total.nonzero().flatten()
        return PixelCounts(used.cpu().numpy(), total[used].cpu().numpy())

    def _intervals(self, scores: Tensor, seen_first: Tensor) -> Tensor:
        """Count the gammas for which each pixel is labelled seen, (H, W) int32."""
        margin = scores[0].float() - scores[1].float()
        # Of equal scores the class with the lower index wins, as in argmax: a margin
        # that is barely larger beats a gamma that it equals.
        upwards = torch.nextafter(margin, margin.new_tensor(math.inf))
        margin = torch.where(seen_first, upwards, margin)
        # For a few gammas this is faster than a binary search in each pixel, and in
        # floats faster than in integers.
        interval, above = torch.zeros_like(margin), torch.empty_like(margin)
        for gamma in self.gammas:
            interval += torch.gt(margin, gamma, out=above)
        return interval.int()

    def _table(self, interval: Tensor, classes: Tensor, left_out: Tensor) -> Tensor:
        """Count (interval, class) pairs, flat, without the pixels left out."""
        cells = self._shape[1] * self._num_classes
        places = interval * self._num_classes + classes
        # Pixels left out are counted in a cell of their own, which is then cut off.
        places.masked_fill_(left_out, cells)
        return torch.bincount(places.flatten(), minlength=cells + 1)[:cells]

    def curve(
        self,
        counts: np.ndarray,
        truth: np.ndarray,
        seen: Sequence[int],
        unseen: Sequence[int],
        absent: str = 'nan',
    ) -> SeenUnseenCurve:
        """Make the seen-unseen curve of all images.

        Args:
            truth: pixels of each class, (K,).
        """
        tables = counts.reshape(self._shape)
        # Row j: sums over the intervals below j and from j on. Gamma number g makes
        # pixels of interval b seen if b > g; -inf and inf stand at both ends.
        below = np.concatenate([np.zeros_like(tables[:, :1]), tables.cumsum(1)], axis=1)
        total = below[:, -1:]
        is_seen = np.isin(np.arange(self._num_classes), seen)
        hits, predicted = np.where(is_seen, total - below, below)
        points = []
        for gamma, hit, made in zip(
            (-math.inf, *self.gammas, math.inf), hits, predicted, strict=True
        ):
            iou, accuracy = area_scores(hit, truth, made, absent)
            points.append(
                CurvePoint(
                    gamma,
                    mean_of_present(iou[list(seen)]),
                    mean_of_present(iou[list(unseen)]),
                    mean_of_present(accuracy[list(seen)]),
                    mean_of_present(accuracy[list(unseen)]),
                )
            )
        return SeenUnseenCurve(tuple(points))


@dataclass(frozen=True)
class CurvePoint:
    """Scores at one shift, within [0, 1] or NaN.

    Attributes:
        gamma: what is taken off the scores of seen classes.
        miou_seen: mean IoU of the seen classes.
        miou_unseen: mean IoU of the unseen classes.
        macc_seen: mean accuracy of the seen classes.
        macc_unseen: mean accuracy of the unseen classes.
    """

    gamma: float
    miou_seen: float
    miou_unseen: float
    macc_seen: float
    macc_unseen: float

    @property
    def hiou(self) -> float:
        """Harmonic mean of the two mean IoUs."""
        return harmonic_mean(self.miou_seen, self.miou_unseen)


@dataclass(frozen=True)
class SeenUnseenCurve:
    """Scores over all shifts.

    Attributes:
        points: by ascending gamma; the first is -inf (only seen classes are
            predicted), the last inf (only unseen ones), so that the area does not
            depend on where the list of gammas ends.
    """

    points: tuple[CurvePoint, ...]

    @property
    def ausuc(self) -> float:
        """Area under (mIoU seen, mIoU unseen), by trapezoids, within [0, 1]."""
        return self._area([(p.miou_seen, p.miou_unseen) for p in self.points])

    @property
    def ausuc_accuracy(self) -> float:
        """The same of mean accuracies, as arXiv 1605.04253 defines it."""
        return self._area([(p.macc_seen, p.macc_unseen) for p in self.points])

    @property
    def best(self) -> CurvePoint:
        """The point of the list with the highest hIoU: an oracle, as it saw the test.

        The first one if no point has an hIoU.
        """
        return max(
            self.points[1:-1],
            key=lambda p: -1 if math.isnan(p.hiou) else p.hiou,
        )

    @staticmethod
    def _area(curve: Sequence[tuple[float, float]]) -> float:
        seen, unseen = np.array(curve).T
        return float(-np.trapezoid(unseen, seen))
