"""Captions: plain words about what is there, and nothing that is not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from zs3_mmseg.datasets.shapes.captions import (
    draw_caption,
    ground_caption,
    known_words,
    plain_caption,
    thing_caption,
)
from zs3_mmseg.datasets.shapes.layout import Layout, draw_layout, get_rules
from zs3_mmseg.datasets.shapes.vocabulary import CLASSES, COLOURS, FILLS


def _words(caption: str) -> list[str]:
    return re.findall('[a-z]+', caption)


@pytest.fixture(scope='module')
def told() -> list[tuple[Layout, tuple[str, ...], str]]:
    rules, rng = get_rules('train'), np.random.default_rng(0)
    result = []
    for _ in range(400):
        layout = draw_layout(rules, rng)
        grounds = tuple(ground.name for ground in layout.grounds if ground.name)
        result.append((layout, grounds, draw_caption(layout.objects, grounds, rng)))
    return result


def test_classes_colours_and_fills_in_a_caption_are_in_the_scene(told: list) -> None:
    for layout, grounds, caption in told:
        words = set(_words(caption))
        objects = layout.objects
        assert words & set(CLASSES) <= {o.name for o in objects} | set(grounds)
        assert words & set(COLOURS) <= {o.colour for o in objects}
        assert words & set(FILLS) <= {o.fill for o in objects}


def test_every_class_and_known_word_occurs_and_no_other(told: list) -> None:
    words = {word for _, _, caption in told for word in _words(caption)}
    assert words == set(known_words())
    assert set(CLASSES) <= words


def test_a_third_of_the_captions_is_plain(told: list) -> None:
    plain = [
        caption.rstrip('.') == plain_caption(layout.objects)
        for layout, _, caption in told
    ]
    assert 0.3 < np.mean(plain) < 0.5


def test_a_ground_caption_tells_grounds_only() -> None:
    rng = np.random.default_rng(0)
    captions = [ground_caption(('sand', 'water'), rng) for _ in range(50)]
    named = [set(_words(caption)) & set(CLASSES) for caption in captions]
    assert {frozenset(names) for names in named} == {
        frozenset({'sand'}),
        frozenset({'water'}),
        frozenset({'sand', 'water'}),
    }


def test_a_thing_caption_tells_each_of_the_things_alone(told: list) -> None:
    rng = np.random.default_rng(0)
    objects = next(layout.objects for layout, _, _ in told if len(layout.objects) > 1)
    captions = [thing_caption(objects, rng) for _ in range(50)]
    named = [set(_words(caption)) & set(CLASSES) for caption in captions]
    assert {frozenset(names) for names in named} == {
        frozenset({item.name}) for item in objects
    }
