"""Which words a caption holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zs3_mmseg.datasets.shapes.scene import render_scene
from zs3_mmseg.datasets.shapes.vocabulary import CLASSES
from zs3_mmseg.utils.captions import WordFinder

WORDS = ['traffic light', 'light', 'berry', 'bus', 'glass', 'T-shirt', 'butterfly']


@pytest.mark.parametrize(
    ('caption', 'expected'),
    [
        ('Two Traffic-Lights, and a light.', ['traffic light', 'light']),
        ('berries on the buses', ['berry', 'bus']),
        ('a glass; glasses', ['glass']),
        ('a man in a t shirt', ['T-shirt']),
        ('traffic, then lights', ['light']),
        ('daylight on a hat', []),
        ('', []),
        ('butter flies', []),
    ],
)
def test_words_and_phrases(caption: str, expected: list[str]) -> None:
    assert [WORDS[place] for place in WordFinder(WORDS).find(caption)] == expected


@pytest.mark.parametrize('index', range(20))
def test_captions_of_shapes_name_only_what_is_there(index: int) -> None:
    scene = render_scene(0, 'train', index)
    found = {CLASSES[place] for place in WordFinder(CLASSES).find(scene.caption)}
    there = {item.name for item in scene.objects} | set(scene.grounds)
    assert found
    assert found <= there
    assert found == {name for name in CLASSES if name in scene.caption}


@given(st.lists(st.sampled_from(WORDS), unique=True))
def test_whatever_stands_apart_is_found(words: list[str]) -> None:
    found = WordFinder(WORDS).find(', the '.join(words))
    assert [WORDS[place] for place in found] == words


def test_what_is_no_word_is_refused() -> None:
    with pytest.raises(ValueError, match="'--' is no word"):
        WordFinder(['cat', '--'])
