"""What each evaluation protocol counts, and what the counts mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.evaluation.boundary import BoundaryCounter
from zs3_mmseg.evaluation.counters import (
    ConfusionCounter,
    Counter,
    Counters,
    GroupCounter,
)
from zs3_mmseg.evaluation.gamma_sweep import GammaCounter
from zs3_mmseg.evaluation.report import ZeroShotResults
from zs3_mmseg.evaluation.scores import group_scores, gzsl_scores
from zs3_mmseg.utils.names import choose

#: Modes in which one group's classes compete alone, and the group's number in
#: :class:`~zs3_mmseg.evaluation.counters.GroupBest`.
GROUP_MODES = {'seen_only': 0, 'zsl_only': 1}
MODES = ('gzsl', *GROUP_MODES)


def check_modes(modes: Sequence[str]) -> tuple[str, ...]:
    """Return the modes as a tuple."""
    if isinstance(modes, str) or not modes:
        raise ValueError(f'modes must be a list out of {", ".join(MODES)}, got {modes}')
    for mode in modes:
        choose('each of modes', mode, MODES)
    return tuple(modes)


class ProtocolCounters(Counters):
    """Counts what the chosen protocols need; the confusion matrix always."""

    def __init__(
        self,
        split: ZeroShotSplit,
        ignore_index: int,
        modes: Sequence[str],
        gammas: Sequence[float] | None,
        boundary_ratio: float | None = None,
    ) -> None:
        self._split = split
        self._members = (split.seen_indices, split.unseen_indices)
        self._modes = [mode for mode in GROUP_MODES if mode in modes]
        self._sweep: GammaCounter | None = None
        classes = len(split.classes)
        counters: dict[str, Counter] = {'gzsl': ConfusionCounter(classes, ignore_index)}
        for mode in self._modes:
            number = GROUP_MODES[mode]
            members = self._members[number]
            if not members:
                raise ValueError(
                    f'ZeroShotIoUMetric(modes=[..., {mode!r}]): split {split.name!r} '
                    f'has no {("seen", "unseen")[number]} class'
                )
            counters[mode] = GroupCounter(number, members, classes, ignore_index)
        if gammas is not None:
            if not all(self._members):
                raise ValueError(
                    'ZeroShotIoUMetric(gamma_sweep=...) weighs seen against unseen '
                    f'classes, and split {split.name!r} lacks one of the two'
                )
            self._sweep = counters['sweep'] = GammaCounter(
                gammas, classes, ignore_index
            )
        self._boundary: BoundaryCounter | None = None
        if boundary_ratio is not None:
            self._boundary = counters['boundary'] = BoundaryCounter(
                boundary_ratio, classes, ignore_index
            )
        super().__init__(**counters)

    def results(self, total: np.ndarray, images: int, absent: str) -> ZeroShotResults:
        """Turn the counts of all images into scores."""
        confusion = self._matrix(total, 'gzsl')
        curve = None
        if self._sweep is not None:
            counts = self.block(total, 'sweep')
            truth = confusion.sum(1)
            curve = self._sweep.curve(counts, truth, *self._members, absent)
        groups = {
            mode: group_scores(
                self._matrix(total, mode), self._members[GROUP_MODES[mode]], absent
            )
            for mode in self._modes
        }
        boundary = None
        if self._boundary is not None:
            boundary = self._boundary.iou(self.block(total, 'boundary'), absent)
        gzsl = gzsl_scores(confusion, *self._members, absent)
        return ZeroShotResults(
            self._split, images, absent, confusion, gzsl, groups, curve, boundary
        )

    def _matrix(self, total: np.ndarray, name: str) -> np.ndarray:
        classes = len(self._split.classes)
        return self.block(total, name).reshape(classes, classes)
