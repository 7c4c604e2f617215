"""Tables for people and a JSON file for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from prettytable import PrettyTable

from zs3_mmseg.evaluation.scores import class_scores
from zs3_mmseg.utils.cache import atomic_write


def _percent(value: float) -> str:
    return 'n/a' if math.isnan(value) else f'{100 * value:.2f}'


def class_table(
    confusion: np.ndarray,
    classes: Sequence[str],
    unseen: Sequence[int],
    absent: str,
) -> str:
    """Draw the scores of each class, seen ones first.

    Args:
        confusion: pixel counts, rows = truth, (K, K).
        classes: K names.
        unseen: indices of the unseen ones.
        absent: see :func:`~zs3_mmseg.evaluation.scores.class_scores`.
    """
    iou, accuracy = class_scores(confusion, absent)
    share = confusion.sum(1) / max(confusion.sum(), 1)
    hidden = set(unseen)
    groups = {
        'seen': [index for index in range(len(classes)) if index not in hidden],
        'unseen': sorted(hidden),
    }
    table = PrettyTable(['Group', 'Class', 'IoU', 'Acc', '% of pixels'])
    table.align.update({'Group': 'l', 'Class': 'l', 'IoU': 'r', 'Acc': 'r'})
    table.align['% of pixels'] = 'r'
    for group, members in groups.items():
        for index in members:
            table.add_row(
                [
                    group,
                    classes[index],
                    _percent(iou[index]),
                    _percent(accuracy[index]),
                    _percent(share[index]),
                ],
                divider=index == members[-1],
            )
    return table.get_string()


def summary_table(
    scores: Mapping[str, float], confusion: np.ndarray, unseen: Sequence[int]
) -> str:
    """Draw the scores of the groups and how many of their classes are there.

    Args:
        scores: what :func:`~zs3_mmseg.evaluation.scores.gzsl_scores` returns.
        confusion: pixel counts, rows = truth, (K, K).
        unseen: indices of the unseen classes.
    """
    there = confusion.sum(1) > 0
    hidden = np.isin(np.arange(len(confusion)), unseen)
    groups = dict(all=hidden | ~hidden, seen=~hidden, unseen=hidden)
    table = PrettyTable(['', 'aAcc', 'mAcc', 'mIoU', 'classes in the truth'])
    for row, members in groups.items():
        suffix = '' if row == 'all' else f'_{row}'
        values = [_percent(scores[f'{k}{suffix}']) for k in ('aAcc', 'mAcc', 'mIoU')]
        present = f'{(there & members).sum()} of {members.sum()}'
        table.add_row([row, *values, present])
    harmonic = [_percent(scores[key]) for key in ('haAcc', 'hAcc', 'hIoU')]
    table.add_row(['harmonic', *harmonic, ''])
    return table.get_string()


def write_labels(path: Path, labels: np.ndarray, num_classes: int) -> None:
    """Write a label map ``(H, W)`` of class indices as a grey PNG.

    8 bits deep, or 16 for more than 256 classes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    depth = np.uint8 if num_classes <= 256 else np.uint16
    Image.fromarray(labels.astype(depth)).save(path)


def write_json(
    path: Path,
    confusion: np.ndarray,
    scores: Mapping[str, float],
    classes: Sequence[str],
    unseen: Sequence[int],
    absent: str,
    extra: Mapping[str, Any],
) -> None:
    """Write everything the tables show, unrounded, and the confusion matrix.

    Scores are in percent; null stands for "no such pixels".
    """
    iou, accuracy = class_scores(confusion, absent)
    hidden = set(unseen)
    rows = [
        dict(
            name=name,
            unseen=index in hidden,
            IoU=_number(iou[index]),
            Acc=_number(accuracy[index]),
            pixels=int(confusion[index].sum()),
        )
        for index, name in enumerate(classes)
    ]
    content = dict(
        extra,
        absent=absent,
        scores={key: _number(value) for key, value in scores.items()},
        classes=rows,
        confusion=confusion.tolist(),
    )
    encoded = json.dumps(content, indent=1, allow_nan=False).encode()
    atomic_write(path, lambda stream: stream.write(encoded))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else 100 * float(value)
