"""Rasterising: polygons at twice the size, area-averaged down, and the fills.

Everything is painted on a canvas of ``OVERSAMPLE`` times the final side and
averaged by OpenCV, so that edges are smooth and masks agree with pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 112
OVERSAMPLE = 2
CANVAS = SIDE * OVERSAMPLE

Image = NDArray[np.uint8]  # (H, W, 3) RGB, 0 to 255
Mask = NDArray[np.uint8]  # (H, W), 0 or 1
Points = NDArray[np.float64]  # (n, 2) x, y in final pixels
Colour = tuple[int, int, int]

_SHIFT = 4  # fractional bits of polygon corners


def _corners(points: Points) -> NDArray[np.int32]:
    # Pixel k of the canvas covers k to k + 1, its centre lies at k + 0.5.
    scaled = (points * OVERSAMPLE - 0.5) * (1 << _SHIFT)
    return np.rint(scaled).astype(np.int32)


def fill(canvas: NDArray[np.uint8], points: Points, value: Colour | int) -> None:
    """Paint a polygon in place.

    Args:
        canvas: (CANVAS, CANVAS, 3) image or (CANVAS, CANVAS) mask.
        points: corners (n, 2) in final pixels; may lie outside.
        value: colour or mask value.
    """
    scalar = (value,) if isinstance(value, int) else value
    cv2.fillPoly(canvas, [_corners(points)], scalar, lineType=cv2.LINE_8, shift=_SHIFT)


def empty_mask() -> Mask:
    """A canvas-sized mask of zeros."""
    return np.zeros((CANVAS, CANVAS), np.uint8)


def covered(mask: Mask) -> NDArray[np.bool_]:
    """Final pixels (SIDE, SIDE) of which a canvas mask covers at least half."""
    blocks = mask.reshape(SIDE, OVERSAMPLE, SIDE, OVERSAMPLE)
    return blocks.sum(axis=(1, 3)) * 2 >= OVERSAMPLE * OVERSAMPLE


def average_down(canvas: Image) -> Image:
    """Average a canvas (CANVAS, CANVAS, 3) to the final size (SIDE, SIDE, 3)."""
    small = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def paste(canvas: Image, mask: Mask, texture: Image) -> None:
    """Copy ``texture`` onto ``canvas`` in place where ``mask`` is set."""
    cv2.copyTo(texture, mask, canvas)


def frame_coordinates(
    centre: tuple[float, float], angle: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates of canvas pixels in a turned frame, in final pixels.

    Args:
        centre: origin of the frame, x and y in final pixels.
        angle: rotation of the frame in radians.

    Returns:
        x and y, each (CANVAS, CANVAS).
    """
    axis = (np.arange(CANVAS, dtype=np.float32) + np.float32(0.5)) / OVERSAMPLE
    x = axis[None, :] - np.float32(centre[0])
    y = axis[:, None] - np.float32(centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = x * cos + y * sin, y * cos - x * sin
    return along.astype(np.float32), across.astype(np.float32)


def patterned(
    kind: str,
    first: Colour,
    second: Colour,
    centre: tuple[float, float],
    angle: float,
    period: float,
) -> Image:
    """A canvas-sized texture of two colours.

    Args:
        kind: ``'striped'``, ``'dotted'`` or ``'checkered'``.
        first: colour of the ground of the pattern.
        second: colour of stripes, dots or every other check.
        centre: origin of the pattern in final pixels.
        angle: its rotation in radians.
        period: length after which it repeats, in final pixels.

    Raises:
        ValueError: for another kind.
    """
    x, y = frame_coordinates(centre, angle)
    u, v = x / np.float32(period), y / np.float32(period)
    if kind == 'striped':
        second_here = (u - np.floor(u)) < 0.5
    elif kind == 'checkered':
        second_here = ((u - np.floor(u)) < 0.5) ^ ((v - np.floor(v)) < 0.5)
    elif kind == 'dotted':
        second_here = (u - np.floor(u) - 0.5) ** 2 + (v - np.floor(v) - 0.5) ** 2 < 0.09
    else:
        raise ValueError(f"expected 'striped', 'dotted' or 'checkered', got {kind!r}")
    colours = np.array([first, second], np.uint8)
    return colours[second_here.astype(np.intp)]
