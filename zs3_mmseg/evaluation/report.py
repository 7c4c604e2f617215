"""Tables for people."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from prettytable import PrettyTable

from zs3_mmseg.evaluation.confusions import Confusions
from zs3_mmseg.evaluation.gamma_sweep import SeenUnseenCurve
from zs3_mmseg.evaluation.results import ZeroShotResults
from zs3_mmseg.evaluation.scores import class_scores


def _percent(value: float) -> str:
    return 'n/a' if math.isnan(value) else f'{100 * value:.2f}'


def class_table(
    confusion: np.ndarray,
    classes: Sequence[str],
    unseen: Sequence[int],
    absent: str,
    boundary_iou: np.ndarray | None = None,
) -> str:
    """Draw the scores of each class, seen ones first.

    Args:
        confusion: pixel counts, rows = truth, (K, K).
        classes: K names.
        unseen: indices of the unseen ones.
        absent: see :func:`~zs3_mmseg.evaluation.scores.class_scores`.
        boundary_iou: boundary IoU of each class, (K,), for a column of its own.
    """
    iou, accuracy = class_scores(confusion, absent)
    columns = {'IoU': iou, 'Acc': accuracy}
    if boundary_iou is not None:
        columns['Boundary IoU'] = boundary_iou
    columns['% of pixels'] = confusion.sum(1) / max(confusion.sum(), 1)
    hidden = set(unseen)
    groups = {
        'seen': [index for index in range(len(classes)) if index not in hidden],
        'unseen': sorted(hidden),
    }
    table = PrettyTable(['Group', 'Class', *columns])
    table.align.update({'Group': 'l', 'Class': 'l', **dict.fromkeys(columns, 'r')})
    for group, members in groups.items():
        for index in members:
            values = [_percent(column[index]) for column in columns.values()]
            table.add_row(
                [group, classes[index], *values], divider=index == members[-1]
            )
    return table.get_string()


def summary_table(
    scores: Mapping[str, float], confusion: np.ndarray, unseen: Sequence[int]
) -> str:
    """Draw the scores of the groups and how many of their classes are there.

    Args:
        scores: what :meth:`ZeroShotResults.generalised` returns.
        confusion: pixel counts, rows = truth, (K, K).
        unseen: indices of the unseen classes.
    """
    there = confusion.sum(1) > 0
    hidden = np.isin(np.arange(len(confusion)), unseen)
    groups = dict(all=hidden | ~hidden, seen=~hidden, unseen=hidden)
    harmonic = {'aAcc': 'haAcc', 'mAcc': 'hAcc', 'mIoU': 'hIoU'}
    if 'mBIoU' in scores:
        harmonic['mBIoU'] = 'hBIoU'
    table = PrettyTable(['', *harmonic, 'classes in the truth'])
    for row, members in groups.items():
        suffix = '' if row == 'all' else f'_{row}'
        values = [_percent(scores[f'{key}{suffix}']) for key in harmonic]
        present = f'{(there & members).sum()} of {members.sum()}'
        table.add_row([row, *values, present])
    means = [_percent(scores[key]) for key in harmonic.values()]
    table.add_row(['harmonic', *means, ''])
    return table.get_string()


def group_table(groups: Mapping[str, Mapping[str, float]]) -> str:
    """Draw the scores of groups whose classes compete among themselves only.

    Args:
        groups: mode to scores, see
            :func:`~zs3_mmseg.evaluation.scores.group_scores`.
    """
    keys = ('aAcc', 'mAcc', 'mIoU')
    table = PrettyTable(['', *keys])
    for mode, scores in groups.items():
        table.add_row([mode, *(_percent(scores[key]) for key in keys)])
    return table.get_string()


def confusion_table(confusions: Sequence[Confusions], classes: Sequence[str]) -> str:
    """Draw what the pixels of unseen classes were taken for.

    Args:
        confusions: see :func:`~zs3_mmseg.evaluation.confusions.top_confusions`.
        classes: K names.
    """
    table = PrettyTable(['Unseen class', '% right', '% as seen', 'taken for (%)'])
    table.align.update({'Unseen class': 'l', 'taken for (%)': 'l'})
    for found in confusions:
        wrong = ', '.join(f'{classes[k]} {100 * part:.1f}' for k, part in found.wrong)
        table.add_row(
            [
                classes[found.label],
                _percent(found.right),
                _percent(found.as_seen),
                wrong or 'nothing else',
            ]
        )
    return table.get_string()


def curve_table(curve: SeenUnseenCurve) -> str:
    """Draw the scores at each shift; the ends are those of one group alone."""
    table = PrettyTable(['gamma', 'mIoU seen', 'mIoU unseen', 'hIoU'])
    for point in curve.points:
        values = (point.miou_seen, point.miou_unseen, point.hiou)
        table.add_row([f'{point.gamma:g}', *(_percent(value) for value in values)])
    return table.get_string()


def report_tables(found: ZeroShotResults, modes: Collection[str]) -> Iterator[str]:
    """Yield a titled table for each thing that an evaluation was asked for.

    Args:
        found: counts and scores.
        modes: those of :class:`~zs3_mmseg.evaluation.ZeroShotIoUMetric`.
    """
    split, confusion = found.split, found.confusion
    if 'gzsl' in modes:
        unseen = split.unseen_indices
        table = class_table(
            confusion, split.classes, unseen, found.absent, found.boundary_iou
        )
        yield f'Scores of each class:\n{table}'
        yield (
            f'Split {split.name!r}, {found.images} images, absent={found.absent!r}:\n'
            f'{summary_table(found.generalised(), confusion, unseen)}'
        )
        confusions = found.confusions()
        if confusions:
            table = confusion_table(confusions, split.classes)
            yield f'What unseen classes were taken for:\n{table}'
    if found.groups:
        yield f'Only classes of one group compete:\n{group_table(found.groups)}'
    if found.curve is not None:
        yield (
            f'Seen scores shifted by gamma, AUSUC {100 * found.curve.ausuc:.2f} (the '
            f'best gamma would be {found.curve.best.gamma:g}):\n'
            f'{curve_table(found.curve)}'
        )
