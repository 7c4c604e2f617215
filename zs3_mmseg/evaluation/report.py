"""Results for people and programs: tables, JSON, CSV, charts, label maps."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from prettytable import PrettyTable

from zs3_mmseg.datasets.splits import ZeroShotSplit, plain_split
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.visualization.charts import (
    confusion_chart,
    per_class_chart,
    seen_unseen_chart,
)

from .boundary import boundary_scores
from .gamma_sweep import SeenUnseenCurve
from .scores import class_scores


@dataclass(frozen=True)
class Confusions:
    """Where the pixels of one class went.

    Attributes:
        label: index of the class.
        pixels: how many pixels it has in the truth.
        right: share of them that were predicted as it, in [0, 1].
        as_seen: share predicted as any seen class.
        wrong: the most frequent wrong predictions and their shares, largest first.
    """

    label: int
    pixels: int
    right: float
    as_seen: float
    wrong: tuple[tuple[int, float], ...]


def top_confusions(
    confusion: np.ndarray, seen: Sequence[int], unseen: Sequence[int], top: int = 5
) -> list[Confusions]:
    """Return what the pixels of each unseen class were predicted as.

    Args:
        confusion: pixel counts, rows = truth, (K, K).
    """
    found = []
    for label in unseen:
        row = confusion[label].astype(np.float64)
        pixels = int(row.sum())
        if not pixels:
            continue
        shares = row / pixels
        order = [k for k in np.argsort(-shares, kind='stable') if k != label]
        wrong = tuple((int(k), float(shares[k])) for k in order[:top] if shares[k] > 0)
        as_seen = float(shares[list(seen)].sum())
        found.append(Confusions(label, pixels, float(shares[label]), as_seen, wrong))
    return found


# As in the official codes: their weights do not sum up to 1 within a group.
_PARTS_OF_ALL = ('fwIoU_seen', 'fwIoU_unseen', 'hfwIoU')


@dataclass(frozen=True)
class ZeroShotResults:
    """Counts and scores of one evaluation.

    Attributes:
        split: classes in label order, and who is unseen.
        images: how many images were counted.
        absent: the rule for classes without pixels, ``'nan'`` or ``'zero'``.
        confusion: pixel counts, rows = truth, all classes competing, (K, K).
        gzsl: what :func:`~zs3_mmseg.evaluation.scores.gzsl_scores` returns.
        groups: mode (``'zsl_only'``, ``'seen_only'``) to what
            :func:`~zs3_mmseg.evaluation.scores.group_scores` returns.
        curve: scores over the shifts of calibrated stacking, if they were swept.
        boundary_iou: boundary IoU of each class, (K,), in [0, 1] or NaN, if wanted.
    """

    split: ZeroShotSplit
    images: int
    absent: str
    confusion: np.ndarray
    gzsl: Mapping[str, float]
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    curve: SeenUnseenCurve | None = None
    boundary_iou: np.ndarray | None = None

    def per_class(self) -> tuple[np.ndarray, np.ndarray]:
        """Return IoU and accuracy of each class, (K,) each, in [0, 1] or NaN."""
        return class_scores(self.confusion, self.absent)

    def generalised(self) -> dict[str, float]:
        """Return all scores for which all classes compete, in [0, 1] or NaN.

        The parts that groups contribute to ``fwIoU`` are no scores of these groups.
        """
        scores = {k: v for k, v in self.gzsl.items() if k not in _PARTS_OF_ALL}
        if self.boundary_iou is None:
            return scores
        members = self.split.seen_indices, self.split.unseen_indices
        return {**scores, **boundary_scores(self.boundary_iou, *members)}

    def confusions(self) -> list[Confusions]:
        """Return what each unseen class was taken for."""
        split = self.split
        return top_confusions(self.confusion, split.seen_indices, split.unseen_indices)


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
        confusion: pixel counts, rows = truth, (K, K).
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
    """Draw the scores of groups whose classes compete among themselves only."""
    keys = ('aAcc', 'mAcc', 'mIoU')
    table = PrettyTable(['', *keys])
    for mode, scores in groups.items():
        table.add_row([mode, *(_percent(scores[key]) for key in keys)])
    return table.get_string()


def confusion_table(confusions: Sequence[Confusions], classes: Sequence[str]) -> str:
    """Draw what the pixels of unseen classes were taken for."""
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
    """Yield a titled table for each thing that an evaluation was asked for."""
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


JSON_NAME = 'zero_shot_iou.json'
CLASSES_NAME = 'classes.csv'
CONFUSIONS_NAME = 'unseen_confusions.csv'
CURVE_NAME = 'seen_unseen_curve.csv'


def write_labels(path: Path, labels: np.ndarray, num_classes: int) -> None:
    """Write a label map ``(H, W)`` of class indices as a grey PNG.

    8 bits deep, or 16 for more than 256 classes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    depth = np.uint8 if num_classes <= 256 else np.uint16
    Image.fromarray(labels.astype(depth)).save(path)


def write_json(path: Path, results: ZeroShotResults) -> None:
    """Write everything the tables show, unrounded, and the confusion matrix.

    Scores are in percent; null stands for "no such pixels".
    """
    split, confusion = results.split, results.confusion
    content = dict(
        split=plain_split(split),
        images=results.images,
        absent=results.absent,
        scores={key: _number(value) for key, value in results.generalised().items()},
        classes=_class_rows(results),
        unseen_confusions=_confusion_rows(results),
        confusion=confusion.tolist(),
    )
    for mode, scores in results.groups.items():
        content[mode] = {key: _number(value) for key, value in scores.items()}
    if results.curve is not None:
        content['gamma_sweep'] = dict(
            AUSUC=_number(results.curve.ausuc),
            AUSUC_acc=_number(results.curve.ausuc_accuracy),
            oracle_gamma=results.curve.best.gamma,
            oracle_hIoU=_number(results.curve.best.hiou),
            points=_curve_rows(results),
        )
    encoded = json.dumps(content, indent=1, allow_nan=False).encode()
    atomic_write(path, lambda stream: stream.write(encoded))


def write_tables(folder: Path, results: ZeroShotResults) -> None:
    """Write the tables as CSV files: classes, confusions, and the curve if any.

    Scores are in percent; an empty cell stands for "no such pixels".
    """
    classes = _class_rows(results)
    scores = [key for key in classes[0] if key not in ('name', 'unseen')]
    _write_csv(
        folder / CLASSES_NAME,
        ['class', 'group', *scores],
        (
            [row['name'], 'unseen' if row['unseen'] else 'seen']
            + [row[key] for key in scores]
            for row in classes
        ),
    )
    if results.split.unseen:
        _write_csv(
            folder / CONFUSIONS_NAME,
            ['class', 'predicted', 'percent'],
            (
                [row['name'], wrong['name'], wrong['percent']]
                for row in _confusion_rows(results)
                for wrong in row['wrong']
            ),
        )
    if results.curve is not None:
        rows = _curve_rows(results)
        _write_csv(folder / CURVE_NAME, list(rows[0]), (list(r.values()) for r in rows))


def write_charts(folder: Path, results: ZeroShotResults) -> None:
    """Draw the bars of the classes, the confusion matrix, and the curve if any."""
    split = results.split
    iou, _ = results.per_class()
    bars = per_class_chart(
        {f'mIoU {100 * results.gzsl["mIoU"]:.1f}': (100 * iou).tolist()},
        split.classes,
        split.unseen_indices,
    )
    _write_picture(folder / 'classes.png', bars)
    matrix = confusion_chart(results.confusion, split.classes, split.unseen_indices)
    _write_picture(folder / 'confusion.png', matrix)
    if results.curve is not None:
        points = [
            (point.gamma, 100 * point.miou_seen, 100 * point.miou_unseen)
            for point in results.curve.points
        ]
        curve = seen_unseen_chart(points, 100 * results.curve.ausuc)
        _write_picture(folder / 'seen_unseen_curve.png', curve)


def _write_picture(path: Path, picture: np.ndarray) -> None:
    atomic_write(path, lambda stream: Image.fromarray(picture).save(stream, 'PNG'))


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    text = io.StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    writer.writerows(rows)
    encoded = text.getvalue().encode()
    atomic_write(path, lambda stream: stream.write(encoded))


def _class_rows(results: ZeroShotResults) -> list[dict]:
    split, hidden = results.split, set(results.split.unseen_indices)
    scores = dict(zip(('IoU', 'Acc'), results.per_class(), strict=True))
    if results.boundary_iou is not None:
        scores['boundary_IoU'] = results.boundary_iou
    return [
        dict(name=name, unseen=index in hidden)
        | {key: _number(values[index]) for key, values in scores.items()}
        | dict(pixels=int(results.confusion[index].sum()))
        for index, name in enumerate(split.classes)
    ]


def _confusion_rows(results: ZeroShotResults) -> list[dict]:
    classes = results.split.classes
    return [
        dict(
            name=classes[found.label],
            percent_as_seen=100 * found.as_seen,
            wrong=[
                dict(name=classes[label], percent=100 * share)
                for label, share in found.wrong
            ],
        )
        for found in results.confusions()
    ]


def _curve_rows(results: ZeroShotResults) -> list[dict]:
    """Return the points of the curve; null in place of the infinite shifts."""
    assert results.curve is not None
    return [
        dict(
            gamma=point.gamma if math.isfinite(point.gamma) else None,
            mIoU_seen=_number(point.miou_seen),
            mIoU_unseen=_number(point.miou_unseen),
            hIoU=_number(point.hiou),
            mAcc_seen=_number(point.macc_seen),
            mAcc_unseen=_number(point.macc_unseen),
        )
        for point in results.curve.points
    ]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else 100 * float(value)
