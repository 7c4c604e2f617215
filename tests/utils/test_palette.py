"""Colours for classes that have none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zs3_mmseg.utils.palette import default_palette


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
