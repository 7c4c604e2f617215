"""Colours for classes that have none."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence

# Steps of hue, saturation and value whose multiples spread evenly over 0..1: the
# golden ratio, and the powers of the plastic number (the R2 sequence).
_HUE_STEP = 0.618033988749895
_SATURATION_STEP = 0.7548776662466927
_VALUE_STEP = 0.5698402909980532


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
