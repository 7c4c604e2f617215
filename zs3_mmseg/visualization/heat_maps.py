"""Where in a picture each word is found, as a sheet of heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from PIL import Image

from .sheets import GAP, draw_titles
from .text import INK, PAPER, Pen

#: A colour map whose lightness grows with the value, to colour-blind eyes as well.
_COLOURS = 'viridis'


@cache
def colour_map() -> np.ndarray:
    """Return the colours of values from 0 to 255, ``(256, 3)`` uint8 RGB."""
    from matplotlib import colormaps  # only what draws needs it

    colours = colormaps[_COLOURS](np.arange(256))[:, :3]
    return np.round(255 * colours).astype(np.uint8)


def draw_heat_map(
    image: np.ndarray,
    scores: np.ndarray,
    low: float,
    high: float,
    *,
    alpha: float = 0.7,
) -> np.ndarray:
    """Draw the scores of one class over its picture in grey.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        scores: ``(H, W)``.
        low: score of the darkest colour.
        high: score of the lightest colour.
        alpha: how much the colours hide of the picture.

    Returns:
        ``(H, W, 3)`` uint8, RGB.
    """
    span = max(high - low, float(np.finfo(np.float32).tiny))
    values = (255 * ((scores - low) / span).clip(0, 1)).astype(np.uint8)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    mixed = alpha * colour_map()[values] + (1 - alpha) * grey
    return np.round(mixed).astype(np.uint8)


def draw_scale(low: float, high: float, width: int, font_size: int) -> np.ndarray:
    """Draw the colours with the scores at their ends, ``(h, width, 3)`` uint8 RGB."""
    pen, pad = Pen(font_size), font_size // 2
    ends = [f'{value:.3g}' for value in (low, high)]
    room = max(map(pen.width, ends)) + 2 * pad
    strip = Image.new('RGB', (width, 2 * font_size), PAPER)
    long = max(1, min(width - 2 * room, 24 * font_size))
    bar = np.tile(np.linspace(0, 255, long).astype(np.uint8), (font_size, 1))
    strip.paste(Image.fromarray(colour_map()[bar]), (room, pad))
    for text, x, anchor in (
        (ends[0], room - pad, 'rm'),
        (ends[1], room + long + pad, 'lm'),
    ):
        pen.write(strip, (x, font_size), text, INK, anchor=anchor)
    return np.asarray(strip)


def heat_map_sheet(
    image: np.ndarray,
    scores: np.ndarray,
    names: Sequence[str],
    *,
    cell: int = 320,
    columns: int = 4,
) -> np.ndarray:
    """Draw a heat map for each word, all on one scale, with the picture in front.

    The scale goes from the smallest to the largest score of the picture, so that words
    can be compared; below the maps it says which these are.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        scores: ``(K, H, W)``, such as ``Segmentation.scores``.
        names: K names; below each stands its largest score.
        cell: length of the longer side of a map, in pixels.
        columns: how many maps stand side by side at most.

    Returns:
        ``(h, w, 3)`` uint8, RGB.

    Raises:
        ValueError: scores that do not fit picture and names, or are not finite.
    """
    if scores.shape != (len(names), *image.shape[:2]) or not np.isfinite(scores).all():
        raise ValueError(
            f'expected finite scores of shape {(len(names), *image.shape[:2])}, got '
            f'{scores.shape}'
        )
    factor = cell / max(image.shape[:2])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    shrinks = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    picture = cv2.resize(image, (width, height), interpolation=shrinks)
    low, high = float(scores.min()), float(scores.max())
    panels = {'picture': picture}
    for name, found in zip(names, scores, strict=True):
        small = cv2.resize(found.astype(np.float32), (width, height))
        title = f'{name} (up to {found.max():.3g})'
        panels[title] = draw_heat_map(picture, small, low, high)
    titles, font_size = [*panels], max(13, cell // 20)
    columns = min(columns, len(titles))
    whole = columns * (cell + GAP) - GAP
    strips = []
    for row in range(math.ceil(len(titles) / columns)):
        shown = titles[row * columns : (row + 1) * columns]
        shown += [''] * (columns - len(shown))
        strips.append(np.asarray(draw_titles(shown, cell, font_size)))
        strip = np.full((height + GAP, whole, 3), 255, np.uint8)
        for column, title in enumerate(shown):
            if title:
                left = column * (cell + GAP) + (cell - width) // 2
                strip[:height, left : left + width] = panels[title]
        strips.append(strip)
    strips.append(draw_scale(low, high, whole, font_size))
    return np.concatenate(strips)
