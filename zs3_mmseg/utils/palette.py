"""Colours for classes that have none."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

import cv2
import numpy as np

from .names import synonyms_of

# Steps of hue, saturation and value whose multiples spread evenly over 0..1: the
# golden ratio, and the powers of the plastic number (the R2 sequence).
_HUE_STEP = 0.618033988749895
_SATURATION_STEP = 0.7548776662466927
_VALUE_STEP = 0.5698402909980532

# What is left of linear RGB to people without red (protanopes) and green
# (deuteranopes) cones: Vienot, Brettel and Mollon 1999, doi 10.1002/(SICI)1520-6378(
# 199908)24:4<243::AID-COL5>3.0.CO;2-3.
_BLIND = (
    ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
)
#: Names are given colours out of so many that are far apart.
_NAMED_COLOURS = 40
# Differences of colours (CIELAB, by the worst of three kinds of eyes) that names in
# one list are given while there are any.
_APART = (18.0, 10.0, 5.0)


def default_palette(n: int, *, avoid: Iterable[Sequence[int]] = ()) -> list[list[int]]:
    """Return ``n`` distinct RGB colours, always the same ones.

    Any first few of them are far apart.

    Returns:
        ``n`` lists of three ints in 0..255; black, which reads as "nothing", is
        never one of them.
    """
    if n < 0:
        raise ValueError(f'a palette has at least 0 colours, not {n}')
    taken = {(0, 0, 0), *(tuple(int(c) for c in colour) for colour in avoid)}
    colours: list[list[int]] = []
    step = 0
    while len(colours) < n:
        saturation = 0.95 - 0.55 * (step * _SATURATION_STEP % 1.0)
        value = 0.98 - 0.5 * (step * _VALUE_STEP % 1.0)
        rgb = colorsys.hsv_to_rgb(step * _HUE_STEP % 1.0, saturation, value)
        colour = tuple(round(255 * channel) for channel in rgb)
        step += 1
        if colour not in taken:
            taken.add(colour)
            colours.append(list(colour))
    return colours


def _as_seen(colours: np.ndarray) -> np.ndarray:
    """Return CIELAB of RGB ``(n, 3)`` in three kinds of eyes, ``(n, 3, 3)``."""
    values = colours.reshape(-1, 1, 3).astype(np.float32) / 255
    linear = np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )
    views = [linear, *(linear @ np.array(matrix, np.float32).T for matrix in _BLIND)]
    seen = [
        cv2.cvtColor(view.clip(0, 1).astype(np.float32), cv2.COLOR_LRGB2LAB)
        for view in views
    ]
    return np.concatenate(seen, axis=1)


def colour_distances(
    colours: Sequence[Sequence[int]], others: Sequence[Sequence[int]]
) -> np.ndarray:
    """Return how different colours are at least, to common and colour-blind eyes.

    Args:
        colours: ``n`` colours, RGB in 0..255.
        others: ``m`` more.

    Returns:
        ``(n, m)``, distances in CIELAB (CIE76): the smallest of those to people with
        three, without red and without green cones. Below 10 two areas look alike.
    """
    one, two = (
        _as_seen(np.array(listed, np.uint8).reshape(-1, 3))
        for listed in (colours, others)
    )
    return np.linalg.norm(one[:, None] - two[None], axis=-1).min(axis=-1)


@lru_cache(maxsize=1)
def _named_colours() -> tuple[tuple[int, int, int], ...]:
    """Return colours each of which is as far from those before it as can be."""
    levels = [*range(0, 256, 51)]
    grid = np.array(np.meshgrid(levels, levels, levels)).reshape(3, -1).T
    lightness = _as_seen(grid)[:, 0, 0]
    # On near-black and near-white nothing of a picture is seen, greys are no classes.
    vivid = np.ptp(grid, axis=1) > 60
    grid = grid[(lightness > 28) & (lightness < 92) & vivid]
    chosen = [(0, 114, 178)]
    nearest = colour_distances(grid, chosen)[:, 0]
    while len(chosen) < _NAMED_COLOURS:
        place = int(nearest.argmax())
        red, green, blue = (int(value) for value in grid[place])
        chosen.append((red, green, blue))
        nearest = np.minimum(nearest, colour_distances(grid, chosen[-1:])[:, 0])
    return tuple(chosen)


def palette_of_names(
    names: Sequence[str], *, avoid: Sequence[Sequence[int]] = ()
) -> list[list[int]]:
    """Return a colour for each class, its own whatever stands beside it.

    A name has a colour of its own in every list, of which synonyms (``sofa|couch``)
    have that of the first, unless a name before it, or ``avoid``, has one that is too
    close. Colours in a list are far apart, also for people who confuse red and green.

    Args:
        names: class names.
        avoid: colours that are taken.

    Returns:
        distinct lists of three ints in 0..255, none of them black.
    """
    known = _named_colours()
    taken = [(int(r), int(g), int(b)) for r, g, b in avoid]
    nearest = np.full(len(known), np.inf)
    if taken:
        nearest = colour_distances(known, taken).min(axis=1)
    colours: list[list[int]] = []
    for name in names:
        key = synonyms_of(name)[0].casefold().encode()
        seed = int.from_bytes(hashlib.sha256(key).digest()[:8], 'big')
        order = np.random.default_rng(seed).permutation(len(known))
        far = [[k for k in order if nearest[k] >= apart] for apart in _APART]
        place = next((listed[0] for listed in far if listed), None)
        if place is None:
            (colour,) = default_palette(1, avoid=taken)
            chosen = (colour[0], colour[1], colour[2])
        else:
            chosen = known[place]
        taken.append(chosen)
        colours.append([*chosen])
        nearest = np.minimum(nearest, colour_distances(known, [chosen])[:, 0])
    return colours
