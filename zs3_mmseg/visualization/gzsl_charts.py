"""Charts of how seen and unseen classes compete."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.figure import Figure

from zs3_mmseg.visualization.charts import (
    LAYOUT,
    SEEN_COLOUR,
    UNSEEN_COLOUR,
    quiet_axes,
    render,
)
from zs3_mmseg.visualization.drawing import class_indices

# Above this number of classes their names would be too small to be read.
_NAMED_CLASSES = 60


def confusion_chart(
    confusion: np.ndarray,
    classes: Sequence[str],
    unseen: Collection[int | str] = (),
) -> np.ndarray:
    """Draw a confusion matrix, each row in percent, seen classes before unseen ones.

    Each of the four fields of seen and unseen also says how many percent of the
    truth's group were predicted in the other one.

    Args:
        confusion: pixel counts, rows = truth, (K, K).
        classes: K class names.
        unseen: names or positions of the unseen ones.

    Returns:
        ``(h, w, 3)`` uint8, RGB.

    Raises:
        ValueError: if matrix and names don't fit.
    """
    count = len(classes)
    if confusion.shape != (count, count):
        raise ValueError(
            f'a confusion matrix of shape {confusion.shape} does not fit {count} '
            'classes'
        )
    hidden = class_indices(classes, unseen)
    order = sorted(range(count), key=lambda index: (index in hidden, index))
    ordered = confusion[np.ix_(order, order)].astype(np.float64)
    pixels = ordered.sum(1, keepdims=True)
    shares = np.divide(
        100 * ordered, pixels, out=np.full_like(ordered, np.nan), where=pixels > 0
    )
    side = 3.2 + 0.17 * min(count, _NAMED_CLASSES)
    figure = Figure(figsize=(side + 1, side + 0.6), dpi=110, layout=LAYOUT)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap='Blues', vmin=0, vmax=100, interpolation='nearest')
    figure.colorbar(image, ax=axes, shrink=0.8, label='% of the truth')
    named = count <= _NAMED_CLASSES
    names = [classes[index] for index in order] if named else []
    places = range(count) if named else []
    axes.set_xticks(places, names, rotation=90, fontsize=7)
    axes.set_yticks(places, names, fontsize=7)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        for label, index in zip(labels, order, strict=False):
            label.set_color(UNSEEN_COLOUR if index in hidden else SEEN_COLOUR)
    axes.set_xlabel('predicted')
    axes.set_ylabel('truth')
    border = count - len(hidden)
    if 0 < border < count:
        for line in (axes.axhline, axes.axvline):
            line(border - 0.5, color=UNSEEN_COLOUR, linewidth=1.5)
        axes.set_title(_group_summary(ordered, border), fontsize=9)
    return render(figure)


def _group_summary(ordered: np.ndarray, border: int) -> str:
    seen, unseen = ordered[:border], ordered[border:]
    lost = 100 * unseen[:, :border].sum() / max(unseen.sum(), 1)
    taken = 100 * seen[:, border:].sum() / max(seen.sum(), 1)
    return f'{lost:.1f} % of unseen taken for seen, {taken:.1f} % of seen for unseen'


def seen_unseen_chart(
    points: Sequence[tuple[float, float, float]], area: float
) -> np.ndarray:
    """Draw mIoU of unseen classes over that of seen ones, one point for each shift.

    Args:
        points: (gamma, mIoU seen, mIoU unseen) in percent; infinite gammas are the
            ends of the curve.
        area: AUSUC in percent, for the title.

    Returns:
        ``(h, w, 3)`` uint8, RGB.
    """
    figure = Figure(figsize=(5, 4.4), dpi=110, layout=LAYOUT)
    axes = figure.subplots()
    seen, unseen = [p[1] for p in points], [p[2] for p in points]
    axes.fill_between(seen, unseen, color=SEEN_COLOUR, alpha=0.12, linewidth=0)
    axes.plot(seen, unseen, color=SEEN_COLOUR, marker='o', markersize=4)
    for gamma, across, up in points:
        if math.isfinite(gamma):
            axes.annotate(
                f'{gamma:g}',
                (across, up),
                xytext=(4, 4),
                textcoords='offset points',
                fontsize=8,
                color=UNSEEN_COLOUR,
            )
    axes.set_xlim(0)
    axes.set_ylim(0)
    axes.set_xlabel('mIoU seen, %')
    axes.set_ylabel('mIoU unseen, %')
    axes.set_title(f'seen scores shifted by gamma: AUSUC {area:.2f} %', fontsize=11)
    quiet_axes(axes, along='y')
    return render(figure)
