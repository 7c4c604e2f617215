"""Colours for classes that have none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zs3_mmseg.utils.palette import (
    colour_distances,
    default_palette,
    palette_of_names,
)


@given(n=st.integers(0, 3000))
def test_colours_are_distinct_bytes_and_the_first_ones_stay(n):
    colours = default_palette(n)
    assert len({tuple(colour) for colour in colours}) == n
    assert all(0 <= value <= 255 for colour in colours for value in colour)
    assert [0, 0, 0] not in colours
    assert default_palette(n + 5)[:n] == colours


def test_taken_colours_are_avoided():
    taken = default_palette(10)
    assert not {tuple(c) for c in taken} & {
        tuple(c) for c in default_palette(50, avoid=taken)
    }


def test_the_first_colours_are_told_apart_by_eye():
    colours = default_palette(21)
    distances = [
        sum(abs(a - b) for a, b in zip(one, other, strict=True))
        for place, one in enumerate(colours)
        for other in colours[:place]
    ]
    assert min(distances) > 40


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match='not -1'):
        default_palette(-1)


WORDS = [
    'cat',
    'traffic light',
    'sofa',
    'sky',
    'grass',
    'cup',
    'Auto',
    'star',
    'sea',
    '犬',
]


def test_a_name_keeps_its_colour_in_any_list() -> None:
    alone = [palette_of_names([word])[0] for word in WORDS]
    together = palette_of_names(WORDS)
    # Only where two names want the same, or nearly so, the second gives way.
    assert sum(a == b for a, b in zip(alone, together, strict=True)) >= 5
    assert palette_of_names(['sofa|couch', 'Sofa '])[0] == alone[2]
    assert palette_of_names(['cat', 'new'])[0] == palette_of_names(['cat'])[0]


@pytest.mark.parametrize(('number', 'apart'), [(4, 17), (10, 17), (20, 10), (40, 6)])
def test_named_colours_are_told_apart_by_colour_blind_eyes(
    number: int, apart: float
) -> None:
    colours = palette_of_names([f'thing {index}' for index in range(number)])
    distances = colour_distances(colours, colours) + 1000 * np.eye(number)
    assert distances.min() > apart


def test_there_are_colours_for_many_names_beside_taken_ones() -> None:
    taken = default_palette(20)
    colours = palette_of_names([f'thing {index}' for index in range(150)], avoid=taken)
    assert len({tuple(colour) for colour in [*colours, *taken, [0, 0, 0]]}) == 171


def test_red_and_green_are_close_to_who_confuses_them() -> None:
    # To other eyes they are more than 100 apart.
    (pair,) = colour_distances([(255, 0, 0)], [(0, 128, 0), (0, 0, 255)])
    assert pair[0] < 30 < 100 < pair[1]
