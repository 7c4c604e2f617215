"""One segmented picture with names in it and a legend below."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from zs3_mmseg.utils.labels import IGNORE_INDEX

from .drawing import (
    class_indices,
    draw_legend,
    draw_segmentation,
    legend_entries,
    write_names,
)

READABLE_SIDE, LARGEST_SIDE = 256, 2048


def enlargement(height: int, width: int) -> int:
    """Return the whole factor at which names can be read in a small picture."""
    wanted = -(-READABLE_SIDE // min(height, width))
    return max(1, min(wanted, LARGEST_SIDE // max(height, width)))


def enlarge(array: np.ndarray, factor: int) -> np.ndarray:
    """Repeat each pixel of ``(H, W, ...)`` ``factor`` times in both directions."""
    if factor == 1:
        return array
    return np.repeat(np.repeat(array, factor, axis=0), factor, axis=1)


def legend_font_size(height: int, width: int) -> int:
    """Return the size at which a legend is in scale with its picture."""
    return max(13, min(max(height, width) // 48, width // 20))


_NARROWEST = 360
_FOOTNOTE = 'hatched: unseen classes, without masks in training'


def _at_least_wide(picture: np.ndarray, width: int) -> np.ndarray:
    """Put a narrow picture in the middle of a white strip."""
    missing = max(0, width - picture.shape[1])
    sides = (missing // 2, missing - missing // 2)
    return np.pad(picture, ((0, 0), sides, (0, 0)), constant_values=255)


def class_shares(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the share of pixels of each class.

    Args:
        labels: ``(H, W)`` integers; those that are no class count for the total only.

    Returns:
        ``(K,)`` float64, 0..1.
    """
    inside = labels[(labels >= 0) & (labels < num_classes)]
    return np.bincount(inside.ravel(), minlength=num_classes) / labels.size


def as_percent(share: float) -> str:
    """Return a share as text; a class that has any pixel never reads ``0 %``."""
    # No line break between number and unit.
    if 0 < share < 0.001:
        return '<0.1\N{NO-BREAK SPACE}%'
    return f'{100 * share:.1f}\N{NO-BREAK SPACE}%'


def hatched_classes(
    classes: Sequence[str], unseen: Collection[int | str]
) -> frozenset[int]:
    """Return the classes to hatch: those unseen, so none where all of them are."""
    hatched = class_indices(classes, unseen)
    return hatched if len(hatched) < len(classes) else frozenset()


def draw_named_regions(
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    hatched: Collection[int | str] = (),
    *,
    ignore_index: int = IGNORE_INDEX,
    alpha: float = 0.6,
) -> np.ndarray:
    """Draw regions over their picture with names in them, as for a legend beside it.

    A picture with a side below ``READABLE_SIDE`` pixels is enlarged. The arguments are
    those of :func:`draw_overlay`, but what is ``hatched`` is so in any case.

    Returns:
        ``(h, w, 3)`` uint8, RGB.
    """
    factor = enlargement(*labels.shape)
    shown_labels = enlarge(labels.astype(np.int32), factor)
    drawn = draw_segmentation(
        enlarge(image, factor),
        shown_labels,
        classes,
        palette,
        hatched,
        ignore_index,
        alpha,
    )
    return write_names(drawn, shown_labels, classes)


def draw_overlay(
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    unseen: Collection[int | str] = (),
    *,
    ignore_index: int = IGNORE_INDEX,
    alpha: float = 0.6,
    whole_legend: bool = False,
) -> np.ndarray:
    """Draw a segmented picture, names in its regions, and a legend below.

    The legend lists the classes that occur, the largest first, with their share of
    the pixels. Unseen classes are hatched to tell them from the others, so not where
    all classes are unseen. The picture keeps its size, with the legend in scale; only
    one with a side below ``READABLE_SIDE`` pixels is enlarged by a whole factor.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        labels: ``(H, W)`` integers.
        classes: K class names.
        palette: K colours, RGB, 0..255.
        unseen: names or positions of classes to hatch.
        ignore_index: the label of pixels that belong to no class; they show the
            picture in grey.
        alpha: see :func:`draw_segmentation`.
        whole_legend: list all classes in their order and without shares, so that
            pictures of one size give drawings of one size, as a film needs.

    Returns:
        ``(h, w, 3)`` uint8, RGB.
    """
    shares = class_shares(labels, len(classes))
    hatched = hatched_classes(classes, unseen)
    drawn = _at_least_wide(
        draw_named_regions(
            image,
            labels,
            classes,
            palette,
            hatched,
            ignore_index=ignore_index,
            alpha=alpha,
        ),
        _NARROWEST,
    )
    notes = None if whole_legend else [as_percent(share) for share in shares]
    entries = legend_entries(classes, palette, hatched, notes)
    order = [int(i) for i in np.argsort(-shares, kind='stable') if shares[i] > 0]
    if whole_legend:
        order = [*range(len(classes))]
    width = drawn.shape[1]
    key = draw_legend(
        [entries[index] for index in order],
        width,
        font_size=legend_font_size(*drawn.shape[:2]),
        footnote=_FOOTNOTE if hatched.intersection(order) else '',
    )
    return np.concatenate([drawn, key])
