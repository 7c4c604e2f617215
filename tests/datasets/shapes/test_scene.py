"""Scenes: determinism, masks that agree with pictures, and the colour control."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zs3_mmseg.datasets.shapes.drawing import BODY, CATALOGUE, SIDE
from zs3_mmseg.datasets.shapes.layout import SUBSETS, draw_layout, get_rules
from zs3_mmseg.datasets.shapes.scene import render_scene
from zs3_mmseg.datasets.shapes.vocabulary import CLASSES, COLOURS, PALETTE, THINGS, VOID

subsets = st.sampled_from(sorted(SUBSETS))
indices = st.integers(0, 10**6)


@given(subset=subsets, index=indices, seed=st.integers(0, 50))
def test_the_same_arguments_give_the_same_bytes(
    subset: str, index: int, seed: int
) -> None:
    first, again = (render_scene(seed, subset, index) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.mask.tobytes() == again.mask.tobytes()
    assert first.caption == again.caption


def test_seed_subset_and_index_all_change_the_scene() -> None:
    scenes = [
        render_scene(*key)
        for key in [(0, 'train', 0), (1, 'train', 0), (0, 'val', 0), (0, 'train', 1)]
    ]
    assert len({scene.image.tobytes() for scene in scenes}) == 4


@given(subset=subsets, index=indices)
def test_the_mask_shows_every_object_and_ground_and_nothing_else(
    subset: str, index: int
) -> None:
    scene = render_scene(0, subset, index)
    assert scene.image.shape == (SIDE, SIDE, 3)
    assert scene.image.dtype == scene.mask.dtype == np.uint8
    named = {item.name for item in scene.objects} | set(scene.grounds)
    shown = {CLASSES[value] for value in np.unique(scene.mask) if value != VOID}
    assert shown == named


def test_the_mask_is_where_the_paint_is() -> None:
    # On a pale bare surface a black thing of one part colour needs no mask.
    black = 0
    for index in range(200):
        scene = render_scene(3, 'clip_drawings', index)
        (item,) = scene.objects
        if item.colour != 'black' or set(item.paint) != {BODY}:
            continue
        inside = scene.mask == CLASSES.index(item.name)
        painted = scene.image.astype(int).sum(axis=2) < 400
        assert (inside == painted).mean() > 0.99
        black += 1
    assert black >= 3


def test_test_hard_has_three_objects_that_hide_parts_of_each_other() -> None:
    rules = get_rules('test_hard')
    for index in range(10):
        layout = draw_layout(rules, np.random.default_rng(index))
        assert len(layout.objects) == 3
        alone = sum(_pixels_alone(layout.objects[k]) for k in range(3))
        things = layout.labels < len(THINGS)
        assert things.sum() < alone


def _pixels_alone(item: object) -> int:
    from zs3_mmseg.datasets.shapes.drawing import covered
    from zs3_mmseg.datasets.shapes.layout import object_mask

    return int(covered(object_mask(item)).sum())


def _mutual_information(pairs: list[tuple[str, str]]) -> float:
    """Mutual information in nats of two names, from counts."""
    joint, total = Counter(pairs), len(pairs)
    first, second = (Counter(pair[k] for pair in pairs) for k in (0, 1))
    return sum(
        n / total * np.log(n * total / (first[a] * second[b]))
        for (a, b), n in joint.items()
    )


def _classes_and_colours(subset: str, count: int) -> list[tuple[str, str]]:
    rules, rng = get_rules(subset), np.random.default_rng(0)
    layouts = [draw_layout(rules, rng) for _ in range(count)]
    return [(item.name, item.colour) for lay in layouts for item in lay.objects]


def test_only_the_neutral_subset_has_colours_independent_of_the_class() -> None:
    # Independent draws of this size give (16 - 1)(11 - 1) / 2n = 0.07 nats.
    assert _mutual_information(_classes_and_colours('test_neutral', 600)) < 0.12
    assert _mutual_information(_classes_and_colours('test', 600)) > 0.5


@pytest.mark.parametrize('name', THINGS)
def test_the_parts_of_a_thing_have_its_roles_and_fit_its_frame(name: str) -> None:
    thing = CATALOGUE[name]
    assert {part.role for part in thing.parts} == {BODY, *thing.accents}
    assert {*thing.body, *thing.accents.values()} <= set(COLOURS)
    radius = max(np.linalg.norm(part.outline, axis=1).max() for part in thing.parts)
    assert 0.8 < radius < 1.25


def test_palette_colours_are_told_apart() -> None:
    palette = np.array(PALETTE, int)
    distance = np.abs(palette[:, None] - palette[None]).sum(axis=2)
    assert distance[~np.eye(len(palette), dtype=bool)].min() >= 60


def test_an_unknown_subset_is_named_with_the_closest_one() -> None:
    with pytest.raises(ValueError, match=r"'test_hrad'.*Did you mean 'test_hard'"):
        render_scene(0, 'test_hrad', 0)


def test_a_negative_seed_or_index_is_an_error() -> None:
    with pytest.raises(ValueError, match='got 0 and -1'):
        render_scene(0, 'test', -1)
