"""Charts of results: classes, summaries, confusions, seen against unseen.

matplotlib is imported when something is drawn: most processes draw nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Literal, ParamSpec

import numpy as np

from .drawing import class_indices
from .text import chart_fonts, drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec('P')

SEEN_COLOUR = '#3b6fb6'
UNSEEN_COLOUR = '#e08a1e'
HARMONIC_COLOUR = '#3f8f5b'
_GRID = '#e3e6ea'
_HATCH = '////'


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure of that size in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    return Figure(figsize=(width, height), dpi=110, layout=layout)


def render(figure: Figure) -> np.ndarray:
    """Draw a figure as ``(h, w, 3)`` uint8, RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


# Longer names would leave no room for what a chart shows.
_NAME_LENGTH = 40


def _any_text(chart: Callable[P, np.ndarray]) -> Callable[P, np.ndarray]:
    """Let a chart write class names and titles in any script."""

    @wraps(chart)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> np.ndarray:
        given = [*args, *kwargs.values()]
        lists = [value for value in given if isinstance(value, Mapping | list | tuple)]
        texts = [text for listed in lists for text in listed if isinstance(text, str)]
        with chart_fonts(texts):
            return chart(*args, **kwargs)

    return drawn


def _label(name: str) -> str:
    """Return a name as it stands in a chart."""
    shown = drawable(name)
    if len(shown) <= _NAME_LENGTH:
        return shown
    return shown[: _NAME_LENGTH - 1].rstrip() + '\N{HORIZONTAL ELLIPSIS}'


def _room_for(names: Iterable[str]) -> float:
    """Return the inches that the longest label takes, at least those of a short one."""
    return max(0.9, 0.085 * max(len(_label(name)) for name in names))


def quiet_axes(axes: Axes, *, along: Literal['x', 'y']) -> None:
    """Leave of an axes' frame only what helps to read a value."""
    for side in ('top', 'right', 'left' if along == 'x' else 'bottom'):
        axes.spines[side].set_visible(False)
    axes.grid(axis=along, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def _check_lengths(results: Mapping[str, Sequence[float]], count: int) -> None:
    if not results:
        raise ValueError('a chart needs the results of at least one method')
    for method, values in results.items():
        if len(values) != count:
            raise ValueError(f'{method!r} has {len(values)} values for {count} classes')


@_any_text
def per_class_chart(
    results: Mapping[str, Sequence[float]],
    classes: Sequence[str],
    unseen: Collection[int | str] = (),
    *,
    metric: str = 'IoU',
) -> np.ndarray:
    """Draw one bar for each class and method, unseen classes hatched and below.

    Args:
        results: method name to K values in percent; NaN where a class was absent.
        classes: K class names.
        unseen: names or positions of the classes without training masks.
        metric: what the values are, for the axis.

    Returns:
        ``(h, w, 3)`` uint8, RGB.

    Raises:
        ValueError: a method without a value for each class.
    """
    from matplotlib.patches import Patch

    _check_lengths(results, len(classes))
    hidden = class_indices(classes, unseen)
    order = sorted(range(len(classes)), key=lambda index: (index in hidden, index))
    # A gap between the two groups, seen classes first.
    spots = [place + 0.7 * (index in hidden) for place, index in enumerate(order)]
    colours = [UNSEEN_COLOUR if index in hidden else SEEN_COLOUR for index in order]
    width = 0.6 + _room_for(classes) + 2.6 * len(results)
    figure = _figure(width, 1.3 + 0.24 * len(classes))
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (method, values) in zip(panels, results.items(), strict=True):
        chosen = np.array([values[index] for index in order], dtype=float)
        bars = axes.barh(spots, np.nan_to_num(chosen), color=colours, height=0.72)
        for bar, index, value in zip(bars, order, chosen, strict=True):
            if index in hidden:
                bar.set_hatch(_HATCH)
                bar.set_edgecolor('white')
            label = 'absent' if math.isnan(value) else f'{value:.0f}'
            axes.annotate(
                label,
                (bar.get_width(), bar.get_y() + bar.get_height() / 2),
                xytext=(3, 0),
                textcoords='offset points',
                va='center',
                fontsize=8,
                color='#495057',
            )
        axes.set_title(_label(method), fontsize=11, fontweight='bold')
        axes.set_xlim(0, 110)
        axes.set_xticks(range(0, 101, 25))
        axes.set_xlabel(f'{metric}, %')
        quiet_axes(axes, along='x')
    panels[0].set_yticks(spots, [_label(classes[index]) for index in order])
    panels[0].invert_yaxis()
    if hidden:
        figure.legend(
            handles=[
                Patch(facecolor=SEEN_COLOUR, label='seen'),
                Patch(
                    facecolor=UNSEEN_COLOUR,
                    hatch=_HATCH,
                    edgecolor='white',
                    label='unseen',
                ),
            ],
            loc='outside lower center',
            ncols=2,
            frameon=False,
        )
    return render(figure)


@_any_text
def summary_chart(results: Mapping[str, Mapping[str, float]]) -> np.ndarray:
    """Draw seen mIoU, unseen mIoU and hIoU of several methods.

    Args:
        results: method name to a mapping with ``mIoU_seen``, ``mIoU_unseen`` and
            ``hIoU`` in percent, as the report of ``make demo`` has it.

    Returns:
        ``(h, w, 3)`` uint8, RGB.

    Raises:
        ValueError: no method at all.
        KeyError: a method without one of the three values.
    """
    if not results:
        raise ValueError('a chart needs the results of at least one method')
    series = (
        ('mIoU_seen', 'mIoU seen', SEEN_COLOUR, ''),
        ('mIoU_unseen', 'mIoU unseen', UNSEEN_COLOUR, _HATCH),
        ('hIoU', 'hIoU', HARMONIC_COLOUR, ''),
    )
    width = 1.6 + max(1.7, _room_for(results)) * len(results)
    figure = _figure(width, 3.6)
    axes = figure.subplots()
    spots = np.arange(len(results))
    for number, (key, label, colour, hatch) in enumerate(series):
        bars = axes.bar(
            spots + (number - 1) * 0.27,
            [values[key] for values in results.values()],
            width=0.25,
            color=colour,
            hatch=hatch,
            edgecolor='white',
            label=label,
        )
        axes.bar_label(bars, fmt='%.1f', fontsize=8, padding=2, color='#495057')
    axes.set_xticks(spots, list(map(_label, results)))
    axes.set_ylabel('percent')
    axes.set_ylim(0, 100)
    quiet_axes(axes, along='y')
    figure.legend(loc='outside lower center', ncols=3, frameon=False)
    return render(figure)


# Above this number of classes their names would be too small to be read.
_NAMED_CLASSES = 60


@_any_text
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
    side = 2.4 + 0.17 * min(count, _NAMED_CLASSES)
    room = _room_for(classes) if count <= _NAMED_CLASSES else 0.8
    figure = _figure(side + room + 1, side + room + 0.6)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap='Blues', vmin=0, vmax=100, interpolation='nearest')
    figure.colorbar(image, ax=axes, shrink=0.8, label='% of the truth')
    named = count <= _NAMED_CLASSES
    names = [_label(classes[index]) for index in order] if named else []
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
    figure = _figure(5, 4.4)
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


#: Scores that are followed over a training: key, label, colour and line.
_FOLLOWED = (
    ('mIoU_seen', 'mIoU seen', SEEN_COLOUR, '-'),
    ('mIoU_unseen', 'mIoU unseen', UNSEEN_COLOUR, '--'),
    ('hIoU', 'hIoU', HARMONIC_COLOUR, ':'),
    ('mIoU', 'mIoU', '#6c757d', '-.'),
)
_SUM_COLOUR = '#343a40'
# Colours of Okabe and Ito, which people who confuse colours tell apart.
_LOSSES = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')


def _followed(records: Sequence[Mapping[str, float]], key: str) -> list[list[float]]:
    """Return steps and finite values of a key, in the order of the steps."""
    found = {record['step']: record[key] for record in records if key in record}
    steps = sorted(step for step, value in found.items() if math.isfinite(value))
    return [steps, [found[step] for step in steps]]


@_any_text
def training_chart(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> np.ndarray:
    """Draw losses and scores of trainings over their iterations, a row for each.

    All rows have the same scales, so that runs can be compared. A point is drawn for
    each validation, as there may be only one.

    Args:
        runs: name to what mmengine's ``scalars.json`` holds: records with ``step`` and
            losses (``loss`` is their sum), or ``step`` and scores in percent.

    Returns:
        ``(h, w, 3)`` uint8, RGB.

    Raises:
        ValueError: no run at all, or one without any loss and score.
    """
    if not runs:
        raise ValueError('a chart needs at least one run')
    figure = _figure(9.5, 0.6 + 2.9 * len(runs))
    rows = figure.subplots(len(runs), 2, sharex='col', sharey='col', squeeze=False)
    for (name, records), (left, right) in zip(runs.items(), rows, strict=True):
        parts = sorted({k for record in records for k in record if 'loss' in k})
        # A single part is the sum.
        shown = parts if len(parts) > 2 else [key for key in parts if key == 'loss']
        scores = [key for key, *_ in _FOLLOWED if _followed(records, key)[0]]
        if not (parts or scores):
            raise ValueError(f'the run {name!r} has neither losses nor scores')
        for index, key in enumerate(shown):
            left.plot(
                *_followed(records, key),
                color=_SUM_COLOUR if key == 'loss' else _LOSSES[index % len(_LOSSES)],
                linewidth=2 if key == 'loss' else 1.2,
                label=_label('all' if key == 'loss' else key),
            )
        for key, label, colour, style in _FOLLOWED:
            if key in scores and (key != 'mIoU' or 'hIoU' not in scores):
                right.plot(
                    *_followed(records, key),
                    color=colour,
                    linestyle=style,
                    marker='o',
                    markersize=4,
                    label=label,
                )
        left.set_title(f'{_label(name)}: loss', fontsize=11, fontweight='bold')
        right.set_title(f'{_label(name)}: scores, %', fontsize=11, fontweight='bold')
        right.set_ylim(0, 100)
        for axes in (left, right):
            quiet_axes(axes, along='y')
            if axes.lines:
                axes.legend(frameon=False, fontsize=8)
    for axes in rows[-1]:
        axes.set_xlabel('iteration')
    return render(figure)
