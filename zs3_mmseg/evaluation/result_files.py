"""Results on disk: JSON and CSV for programs, PNG for people, label maps."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from zs3_mmseg.datasets.splits import plain_split
from zs3_mmseg.evaluation.results import ZeroShotResults
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.visualization.charts import per_class_chart
from zs3_mmseg.visualization.gzsl_charts import confusion_chart, seen_unseen_chart

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
