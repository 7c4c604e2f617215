"""A key to the colours of a picture, and names written into regions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from zs3_mmseg.visualization.drawing import (
    Colour,
    class_indices,
    contrast_colour,
    stripes,
)
from zs3_mmseg.visualization.text import (
    FAINT_INK,
    INK,
    PAPER,
    load_font,
    shorten,
    text_width,
)


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend.

    Attributes:
        name: the class name.
        colour: RGB, 0..255.
        hatched: draw the swatch hatched, as :func:`draw_segmentation` draws unseen
            classes.
        note: faint text after the name, such as a share of pixels.
    """

    name: str
    colour: Colour
    hatched: bool = False
    note: str = ''


def legend_entries(
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    unseen: Collection[int | str] = (),
    notes: Sequence[str] | None = None,
) -> list[LegendEntry]:
    """Return one entry for each class, in their order."""
    hatched = class_indices(classes, unseen)
    entries = []
    for index, (name, colour) in enumerate(zip(classes, palette, strict=True)):
        red, green, blue = (int(part) for part in colour)
        note = notes[index] if notes else ''
        entries.append(LegendEntry(name, (red, green, blue), index in hatched, note))
    return entries


def _swatch(entry: LegendEntry, size: int) -> Image.Image:
    square = np.empty((size, size, 3), dtype=np.uint8)
    square[:] = entry.colour
    if entry.hatched:
        lines = stripes(size, size, max(4, size // 3))
        square[lines] = contrast_colour(entry.colour)
    square[[0, -1]] = square[:, [0, -1]] = FAINT_INK
    return Image.fromarray(square)


def draw_legend(
    entries: Sequence[LegendEntry],
    width: int,
    *,
    font_size: int = 16,
    title: str = '',
    footnote: str = '',
    limit: int = 60,
) -> np.ndarray:
    """Draw a legend in as many columns as fit.

    Args:
        entries: what to list; those after ``limit`` are only counted.
        width: width of the result in pixels; long names are cut to fit.
        font_size: height of a text line in pixels.
        title: a heading above the entries.
        footnote: a faint line below them.
        limit: the largest number of entries drawn.

    Returns:
        ``(h, width, 3)`` uint8, RGB, on white; ``h`` follows from the entries.
    """
    font, heading = load_font(font_size), load_font(font_size, bold=True)
    pad, swatch = round(font_size * 0.6), round(font_size * 1.1)
    line = round(font_size * 1.6)
    shown = entries[:limit]
    more = f'and {len(entries) - limit} more' if len(entries) > limit else ''
    tail = [text for text in (more, footnote) if text]
    lead = swatch + pad
    room = max(1, width - 2 * pad)
    widest = max(
        [text_width(font, f'{entry.name}  {entry.note}') for entry in shown],
        default=0,
    )
    columns = max(1, room // (lead + widest + 2 * pad))
    step = room // columns
    rows = -(-len(shown) // columns)
    lines = rows + bool(title) + len(tail)
    sheet = Image.new('RGB', (width, lines * line + 2 * pad), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = pad
    if title:
        draw.text((pad, top), shorten(heading, title, room), INK, heading)
        top += line
    for index, entry in enumerate(shown):
        # Column by column: a list is read downwards.
        column, row = divmod(index, rows)
        left, y = pad + column * step, top + row * line
        sheet.paste(_swatch(entry, swatch), (left, y))
        note_width = text_width(font, f'  {entry.note}') if entry.note else 0
        name = shorten(font, entry.name, max(1, step - lead - note_width))
        draw.text((left + lead, y), name, INK, font)
        if entry.note:
            after = left + lead + text_width(font, name)
            draw.text((after, y), f'  {entry.note}', FAINT_INK, font)
    for row, text in enumerate(tail, rows):
        draw.text((pad, top + row * line), shorten(font, text, room), FAINT_INK, font)
    return np.array(sheet)


def _label_spot(mask: np.ndarray) -> tuple[int, int, float]:
    """Return column, row and distance to the border of the innermost pixel."""
    padded = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = divmod(int(distance.argmax()), mask.shape[1])
    return column, row, float(distance[row, column])


def write_names(
    picture: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> np.ndarray:
    """Write each class's name where its region is thickest.

    A name is left out where it would be larger than the region: the legend tells.

    Args:
        picture: ``(H, W, 3)`` uint8, RGB, such as :func:`draw_segmentation` returns.
        labels: ``(H, W)`` integers.
        classes: K class names; other labels get no name.

    Returns:
        ``(H, W, 3)`` uint8, RGB, a new array.
    """
    height, width = labels.shape
    size = max(11, min(height, width) // 24)
    font = load_font(size, bold=True)
    sheet = Image.fromarray(picture)
    draw = ImageDraw.Draw(sheet)
    inside_any = labels[(labels >= 0) & (labels < len(classes))]
    areas = np.bincount(inside_any.ravel(), minlength=len(classes))
    for label in np.flatnonzero(areas > size * size).tolist():
        column, row, inside = _label_spot(labels == label)
        half = text_width(font, classes[label]) / 2
        if inside < 0.6 * size or half > min(2.5 * inside, width / 2 - 2):
            continue
        draw.text(
            (min(max(column, half + 2), width - half - 2), row),
            classes[label],
            PAPER,
            font,
            anchor='mm',
            stroke_width=max(1, size // 8),
            stroke_fill=INK,
        )
    return np.array(sheet)
