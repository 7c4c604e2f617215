"""Coloured label maps, a key to their colours, and names written into regions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from zs3_mmseg.utils.labels import IGNORE_INDEX, NARROW, WIDE
from zs3_mmseg.utils.names import did_you_mean

from .text import BY_NUMBER, FAINT_INK, INK, PAPER, Colour, Pen, is_by_number


def class_indices(
    classes: Sequence[str], wanted: Collection[int | str]
) -> frozenset[int]:
    """Return positions in ``classes`` for names and positions alike."""
    positions = {name: index for index, name in enumerate(classes)}
    found = set()
    for item in wanted:
        if isinstance(item, str):
            if item not in positions:
                raise ValueError(
                    f'{item!r} is none of the {len(classes)} classes.'
                    f'{did_you_mean(item, classes)}'
                )
            found.add(positions[item])
        elif 0 <= int(item) < len(classes):
            found.add(int(item))
        else:
            raise ValueError(f'class {item} of only {len(classes)} classes')
    return frozenset(found)


def _check_picture(image: np.ndarray, labels: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f'expected an RGB image (H, W, 3) of uint8, got {image.shape} of '
            f'{image.dtype}'
        )
    if labels.shape != image.shape[:2] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f'expected integer labels of shape {image.shape[:2]} like the image, got '
            f'{labels.shape} of {labels.dtype}'
        )


def _as_slots(labels: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    """Map every label that is no class to the slot after the last class."""
    special = {ignore_index, *NARROW, *WIDE}
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        unknown = sorted(set(np.unique(labels[outside]).tolist()) - special)
        if unknown:
            raise ValueError(
                f'labels {unknown[:5]} are no class: there are {num_classes} classes '
                f'(0..{num_classes - 1}) and the void value is {ignore_index}'
            )
    return np.where(outside, num_classes, labels)


def contrast_colour(colour: Sequence[int]) -> Colour:
    """Return black or white, whichever is read better on ``colour``."""
    red, green, blue = colour
    # Relative luminance of ITU-R BT.601, enough to choose between the two.
    bright = 0.299 * red + 0.587 * green + 0.114 * blue
    return (0, 0, 0) if bright > 150 else (255, 255, 255)


def stripes(height: int, width: int, period: int) -> np.ndarray:
    """Return a ``(height, width)`` mask of diagonal lines, ``period`` pixels apart."""
    line = max(1, round(period / 4))
    rows, columns = np.ogrid[:height, :width]
    return (rows + columns) % period < line


def _borders(slots: np.ndarray, thickness: int) -> np.ndarray:
    """Return the pixels where the label changes to the right or downwards."""
    edge: np.ndarray = np.zeros(slots.shape, dtype=np.uint8)
    edge[:, :-1] |= slots[:, :-1] != slots[:, 1:]
    edge[:-1] |= slots[:-1] != slots[1:]
    if thickness > 1:
        edge = cv2.dilate(edge, np.ones((thickness, thickness), dtype=np.uint8))
    return edge.astype(bool)


def _mix(picture: np.ndarray, where: np.ndarray, ink: np.ndarray, part: float) -> None:
    """Move the pixels ``where`` of ``picture`` towards ``ink`` by ``part``, in place.

    ``ink`` is one colour ``(3,)`` or one for each chosen pixel ``(P, 3)``.
    """
    old = picture[where].astype(np.float32)
    picture[where] = np.round(old + (ink - old) * part).astype(np.uint8)


def _shades(
    colours: np.ndarray,
    slots: np.ndarray,
    grey: np.ndarray,
    alpha: float,
    void_colour: Colour | None,
) -> np.ndarray:
    """Return what becomes of each grey value in each class, ``(K + 1, 256, 3)`` uint8.

    Light and shade vary around the mean of the class's pixels, which gets its colour.
    """
    flat, number = slots.ravel(), len(colours)
    pixels = np.maximum(np.bincount(flat, minlength=number), 1)
    means = np.bincount(flat, weights=grey.ravel(), minlength=number) / pixels
    relief = (1 - alpha) * (np.arange(256) - means[:, None])
    shades = colours[:, None] + relief[..., None]
    if void_colour is None:
        shades[-1] = np.arange(256)[:, None]
    return np.round(shades.clip(0, 255)).astype(np.uint8)


def draw_segmentation(
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    unseen: Collection[int | str] = (),
    ignore_index: int = IGNORE_INDEX,
    alpha: float = 0.6,
    *,
    void_colour: Colour | None = None,
    border: bool = True,
) -> np.ndarray:
    """Draw a label map over its picture.

    Regions of unseen classes are hatched with diagonal lines, so that they are told
    apart in print and by people who confuse colours.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        labels: ``(H, W)`` integers: positions in ``classes``, ``ignore_index`` or
            another special value of :mod:`zs3_mmseg.utils.labels`.
        classes: K class names.
        palette: K colours, RGB, 0..255.
        unseen: names or positions of the classes to hatch.
        ignore_index: the label of pixels that belong to no class.
        alpha: how much the colours hide of the picture, which shows as light and shade
            in them, so that they are those of a legend over any picture; 0 shows the
            picture alone, 1 the colours alone.
        void_colour: colour of pixels without a class; None shows the picture there, in
            grey: what has a colour is a class.
        border: draw a thin light line between regions.

    Returns:
        ``(H, W, 3)`` uint8, RGB, a new array.

    Raises:
        ValueError: shapes, types or counts that don't fit, or a label that is
            neither a class nor special.
    """
    _check_picture(image, labels)
    if len(palette) != len(classes):
        raise ValueError(f'{len(palette)} colours for {len(classes)} classes')
    if not 0 <= alpha <= 1:
        raise ValueError(f'alpha must lie in 0..1, got {alpha}')
    hatched_classes = class_indices(classes, unseen)
    slots = _as_slots(labels, len(classes), ignore_index)
    colours = np.array([*palette, void_colour or (0, 0, 0)], dtype=np.uint8)
    drawn = image.copy()
    if alpha > 0:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        drawn = _shades(colours, slots, grey, alpha, void_colour)[slots, grey]
    height, width = labels.shape
    if hatched_classes:
        is_hatched = np.zeros(len(classes) + 1, dtype=bool)
        is_hatched[list(hatched_classes)] = True
        lines = stripes(height, width, max(6, min(height, width) // 22))
        where = is_hatched[slots] & lines
        inks = np.array([contrast_colour(colour) for colour in colours], np.float32)
        _mix(drawn, where, inks[slots[where]], 0.6 * alpha)
    if border:
        edge = _borders(slots, max(1, min(height, width) // 300))
        _mix(drawn, edge, np.full(3, 255, np.float32), 0.75)
    return drawn


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
    pen, heading = Pen(font_size), Pen(font_size, bold=True)
    pad, swatch = round(font_size * 0.6), round(font_size * 1.1)
    line = round(font_size * 1.6)
    shown = entries[:limit]
    lead = swatch + pad
    room = max(1, width - 2 * pad)
    widest = max(
        [pen.width(entry.name) + pen.width(entry.note) for entry in shown], default=0
    )
    columns = max(1, room // (lead + widest + 3 * pad))
    step = room // columns
    rows = -(-len(shown) // columns)
    head = heading.wrap(title, room) if title else []
    more = f'and {len(entries) - limit} more' if len(entries) > limit else ''
    by_number = BY_NUMBER if any(is_by_number(entry.name) for entry in shown) else ''
    tail = [
        part
        for text in (more, footnote, by_number)
        if text
        for part in pen.wrap(text, room)
    ]
    lines = len(head) + rows + len(tail)
    sheet = Image.new('RGB', (width, lines * line + 2 * pad), PAPER)
    for row, text in enumerate(head):
        heading.write(sheet, (pad, pad + row * line), text, INK)
    top = pad + len(head) * line
    for index, entry in enumerate(shown):
        # Column by column: a list is read downwards.
        column, row = divmod(index, rows)
        left, y = pad + column * step, top + row * line
        sheet.paste(_swatch(entry, swatch), (left, y))
        space = step - lead - pen.width(entry.note) - pad
        name = pen.shorten(entry.name, max(1, space))
        pen.write(sheet, (left + lead, y), name, INK)
        if entry.note:
            after = left + lead + pen.width(name) + pad
            pen.write(sheet, (after, y), entry.note, FAINT_INK)
    for row, text in enumerate(tail, rows):
        pen.write(sheet, (pad, top + row * line), text, FAINT_INK)
    return np.array(sheet)


# Names need no exact place: large label maps are looked at in steps.
_SPOT_SIDE = 512


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
    pen = Pen(size, bold=True)
    sheet = Image.fromarray(picture)
    step = max(1, max(height, width) // _SPOT_SIDE)
    coarse = labels[::step, ::step]
    inside_any = labels[(labels >= 0) & (labels < len(classes))]
    areas = np.bincount(inside_any.ravel(), minlength=len(classes))
    for label in np.flatnonzero(areas > size * size).tolist():
        column, row, inside = (step * part for part in _label_spot(coarse == label))
        half = pen.width(classes[label]) / 2
        if inside < 0.6 * size or half > min(2.5 * inside, width / 2 - 2):
            continue
        pen.write(
            sheet,
            (min(max(column, half + 2), width - half - 2), row),
            classes[label],
            PAPER,
            anchor='mm',
            stroke_width=max(1, size // 8),
            stroke_fill=INK,
        )
    return np.array(sheet)
