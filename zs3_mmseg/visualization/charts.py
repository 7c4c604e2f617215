"""Charts of results, with seen and unseen classes told apart.

They are drawn through matplotlib's figure objects with the Agg renderer, so no window
system is needed and no global state of matplotlib is touched.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from zs3_mmseg.visualization.drawing import class_indices

SEEN_COLOUR = '#3b6fb6'
UNSEEN_COLOUR = '#e08a1e'
HARMONIC_COLOUR = '#3f8f5b'
_GRID = '#e3e6ea'
_HATCH = '////'
LAYOUT = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)


def render(figure: Figure) -> np.ndarray:
    """Draw a figure as ``(h, w, 3)`` uint8, RGB."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


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
    _check_lengths(results, len(classes))
    hidden = class_indices(classes, unseen)
    order = sorted(range(len(classes)), key=lambda index: (index in hidden, index))
    # A gap between the two groups, seen classes first.
    spots = [place + 0.7 * (index in hidden) for place, index in enumerate(order)]
    colours = [UNSEEN_COLOUR if index in hidden else SEEN_COLOUR for index in order]
    figure = Figure(
        figsize=(1.6 + 2.6 * len(results), 1.3 + 0.24 * len(classes)),
        dpi=110,
        layout=LAYOUT,
    )
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
        axes.set_title(method, fontsize=11, fontweight='bold')
        axes.set_xlim(0, 110)
        axes.set_xticks(range(0, 101, 25))
        axes.set_xlabel(f'{metric}, %')
        quiet_axes(axes, along='x')
    panels[0].set_yticks(spots, [classes[index] for index in order])
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
    figure = Figure(figsize=(1.6 + 1.7 * len(results), 3.6), dpi=110, layout=LAYOUT)
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
    axes.set_xticks(spots, list(results))
    axes.set_ylabel('percent')
    axes.set_ylim(0, 100)
    quiet_axes(axes, along='y')
    figure.legend(loc='outside lower center', ncols=3, frameon=False)
    return render(figure)
