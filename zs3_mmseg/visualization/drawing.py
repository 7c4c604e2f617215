"""Label maps drawn over pictures, with the classes that had no masks marked."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np

from zs3_mmseg.utils.labels import IGNORE_INDEX, NARROW, WIDE
from zs3_mmseg.utils.names import did_you_mean

Colour = tuple[int, int, int]


def class_indices(
    classes: Sequence[str], wanted: Collection[int | str]
) -> frozenset[int]:
    """Return positions in ``classes`` for names and positions alike.

    Raises:
        ValueError: a name or a position that ``classes`` does not have.
    """
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
        alpha: 0 shows the picture alone, 1 the label colours alone.
        void_colour: colour of pixels without a class, at ``alpha``; None leaves the
            picture there as it is.
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
    drawn = cv2.addWeighted(image, 1 - alpha, colours[slots], alpha, 0)
    if void_colour is None:
        void = slots == len(classes)
        drawn[void] = image[void]
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
