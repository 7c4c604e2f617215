"""Sheets that put picture, truth and predictions side by side."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from zs3_mmseg.utils.labels import IGNORE_INDEX
from zs3_mmseg.visualization.drawing import class_indices, draw_segmentation
from zs3_mmseg.visualization.legend import draw_legend, legend_entries
from zs3_mmseg.visualization.text import INK, PAPER, load_font, text_width

GAP = 8  # between pictures that stand side by side
_MARGIN = 16


def _fit(picture: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    """Bring the long side to ``size`` pixels, keeping the ratio of the sides."""
    height, width = picture.shape[:2]
    scale = size / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, shape, interpolation=interpolation)


def _fit_picture(picture: np.ndarray, size: int) -> np.ndarray:
    shrinks = max(picture.shape[:2]) > size
    return _fit(picture, size, cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _fit_labels(labels: np.ndarray, size: int) -> np.ndarray:
    return _fit(labels.astype(np.int32), size, cv2.INTER_NEAREST)


def _check_rows(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]) -> None:
    if not rows:
        raise ValueError('a comparison sheet needs at least one row')
    for number, row in enumerate(rows):
        if len(row) != len(titles) or len(row) < 2:
            raise ValueError(
                f'row {number} has {len(row)} pictures for {len(titles)} titles; '
                'expected an image and one label map for each further title'
            )


def draw_titles(titles: Sequence[str], size: int, font_size: int) -> Image.Image:
    """Draw one centred title for each column, as large as the longest allows.

    Args:
        titles: one for each column.
        size: width of a column in pixels; :data:`GAP` lies between two of them.
        font_size: the largest height of the text in pixels.
    """
    width = len(titles) * (size + GAP) - GAP
    font = load_font(font_size, bold=True)
    while font_size > 8 and max(text_width(font, title) for title in titles) > size:
        font_size -= 1
        font = load_font(font_size, bold=True)
    strip = Image.new('RGB', (width, round(font_size * 1.9)), PAPER)
    draw = ImageDraw.Draw(strip)
    for column, title in enumerate(titles):
        middle = column * (size + GAP) + size // 2
        draw.text((middle, strip.height // 2), title, INK, font, anchor='mm')
    return strip


def _draw_key(
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    unseen: Collection[int],
    present: Collection[int],
    width: int,
    font_size: int,
) -> np.ndarray:
    """Draw the legend of the classes that occur: seen ones first, then unseen ones."""
    entries = legend_entries(classes, palette, unseen)
    groups = {
        'Seen: masks were given' if unseen else '': [
            index for index in sorted(present) if index not in unseen
        ],
        'Unseen: never labelled in training (hatched)': [
            index for index in sorted(present) if index in unseen
        ],
    }
    keys = [
        draw_legend(
            [entries[index] for index in group],
            width,
            font_size=font_size,
            title=title,
        )
        for title, group in groups.items()
        if group
    ]
    return np.concatenate(keys) if keys else np.full((1, width, 3), 255, np.uint8)


def comparison_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    unseen: Collection[int | str] = (),
    *,
    ignore_index: int = IGNORE_INDEX,
    alpha: float = 0.85,
    cell: int = 192,
) -> np.ndarray:
    """Lay out pictures and label maps in a table with titles and a legend.

    Args:
        rows: each row is an RGB image ``(H, W, 3)`` uint8 followed by label maps
            ``(H, W)``: the truth, then one prediction for each method. Rows may
            differ in size. Void pixels are drawn black.
        titles: one for each column, the image's included.
        classes: K class names.
        palette: K colours, RGB, 0..255.
        unseen: names or positions of classes without training masks; hatched.
        ignore_index: the label of pixels that belong to no class.
        alpha: how much the label colours cover the picture below them.
        cell: length of the longer side of a cell, in pixels.

    Returns:
        ``(h, w, 3)`` uint8, RGB.

    Raises:
        ValueError: rows that don't match the titles, or pictures, labels and classes
            that don't fit each other.
    """
    _check_rows(rows, titles)
    hidden = class_indices(classes, unseen)
    width = len(titles) * (cell + GAP) - GAP
    present: set[int] = set()
    strips = [np.asarray(draw_titles(titles, cell, cell // 10))]
    for image, *maps in rows:
        picture = _fit_picture(image, cell)
        height, row_width = picture.shape[:2]
        strip = np.full((height + GAP, width, 3), 255, np.uint8)
        strip[:height, :row_width] = picture
        for column, labels in enumerate(maps, 1):
            present.update(np.unique(labels).tolist())
            left = column * (cell + GAP)
            strip[:height, left : left + row_width] = draw_segmentation(
                picture,
                _fit_labels(labels, cell),
                classes,
                palette,
                hidden,
                ignore_index,
                alpha,
                void_colour=(0, 0, 0),
            )
        strips.append(strip)
    used = present & set(range(len(classes)))
    strips.append(_draw_key(classes, palette, hidden, used, width, cell // 12))
    body = np.concatenate(strips)
    return np.pad(
        body, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), constant_values=255
    )
