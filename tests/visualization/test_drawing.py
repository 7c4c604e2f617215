"""Label maps over pictures: the right colours at the right pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zs3_mmseg.visualization.drawing import class_indices, draw_segmentation

CLASSES = ('cat', 'dog', 'sky')
PALETTE = ((250, 0, 0), (0, 120, 0), (0, 0, 200))


def grey(height: int, width: int, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


@given(
    labels=hnp.arrays(np.uint8, (5, 7), elements=st.sampled_from([0, 1, 2, 254, 255]))
)
def test_full_opacity_shows_the_palette_and_leaves_void_alone(
    labels: np.ndarray,
) -> None:
    drawn = draw_segmentation(
        grey(5, 7), labels, CLASSES, PALETTE, alpha=1.0, border=False
    )
    for row, column in np.ndindex(5, 7):
        label = labels[row, column]
        expected = PALETTE[label] if label < 3 else (100, 100, 100)
        assert tuple(drawn[row, column]) == expected


def test_zero_opacity_without_borders_is_the_picture() -> None:
    labels = np.arange(12).reshape(3, 4) % 3
    drawn = draw_segmentation(
        grey(3, 4), labels, CLASSES, PALETTE, ['cat'], alpha=0.0, border=False
    )
    np.testing.assert_array_equal(drawn, grey(3, 4))


def photo(kind: str) -> np.ndarray:
    """Return a picture ``(60, 90, 3)`` whose own colours could be taken for classes."""
    rng = np.random.default_rng(0)
    vivid = {'red': (230, 40, 30), 'green': (40, 200, 50), 'white': (255, 255, 255)}
    if kind in vivid:
        return np.full((60, 90, 3), vivid[kind], dtype=np.uint8)
    if kind == 'noise':
        return rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    ramp = np.linspace(0, 255, 90).astype(np.uint8)
    return np.repeat(np.repeat(ramp[None, :, None], 60, axis=0), 3, axis=2)


@pytest.mark.parametrize('alpha', [0.3, 0.6, 0.9])
@pytest.mark.parametrize('kind', ['red', 'green', 'white', 'noise', 'ramp'])
def test_regions_have_the_colours_of_the_legend_over_any_picture(
    kind: str, alpha: float
) -> None:
    # Shades of one hue are the hardest to tell apart.
    palette = ((128, 0, 0), (192, 0, 0), (64, 0, 128), (90, 160, 90))
    names = ('a', 'b', 'c', 'd')
    labels = np.arange(90)[None].repeat(60, axis=0) * 4 // 90
    drawn = draw_segmentation(
        photo(kind), labels, names, palette, alpha=alpha, border=False
    )
    for index, colour in enumerate(palette):
        mean = drawn[labels == index].mean(axis=0)
        distances = [np.abs(mean - other).max() for other in palette]
        assert np.argmin(distances) == index
        if kind in ('red', 'green', 'white'):
            np.testing.assert_array_equal(mean, colour)


def test_light_and_shade_of_the_picture_show_in_the_colours() -> None:
    labels = np.zeros((60, 90), dtype=np.uint8)
    drawn = draw_segmentation(
        photo('ramp'), labels, CLASSES, ((100, 120, 140),) * 3, alpha=0.6
    )
    across = drawn[30].astype(int)
    assert (np.diff(across, axis=0) >= 0).all()
    np.testing.assert_allclose(across[-1] - across[0], 0.4 * 255, atol=2)


def test_what_has_no_class_has_no_colour() -> None:
    labels = np.full((60, 90), 255, dtype=np.uint8)
    drawn = draw_segmentation(photo('noise'), labels, CLASSES, PALETTE)
    assert (drawn == drawn[..., :1]).all()
    assert drawn.std() > 20


def test_hatching_changes_unseen_classes_only() -> None:
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[:, 30:] = 1
    plain = draw_segmentation(grey(40, 60), labels, CLASSES, PALETTE)
    hatched = draw_segmentation(grey(40, 60), labels, CLASSES, PALETTE, ['dog'])
    changed = (plain != hatched).any(axis=2)
    assert not changed[:, :29].any()
    assert 0.1 < changed[:, 30:].mean() < 0.5


def test_void_can_have_a_colour() -> None:
    labels = np.full((3, 3), 255, dtype=np.uint8)
    drawn = draw_segmentation(
        grey(3, 3), labels, CLASSES, PALETTE, alpha=1.0, void_colour=(1, 2, 3)
    )
    assert (drawn == (1, 2, 3)).all()


def test_inputs_are_left_unchanged() -> None:
    picture, labels = grey(30, 30), np.eye(30, dtype=np.int64)
    before = picture.copy(), labels.copy()
    draw_segmentation(picture, labels, CLASSES, PALETTE, [0])
    np.testing.assert_array_equal(picture, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_labels_of_many_classes_reach_their_colours() -> None:
    names = [f'class {index}' for index in range(300)]
    palette = [(index % 256, index // 256, 7) for index in range(300)]
    labels = np.arange(300, dtype=np.uint16).reshape(15, 20)
    drawn = draw_segmentation(
        grey(15, 20), labels, names, palette, ignore_index=65535, alpha=1, border=False
    )
    assert drawn.reshape(-1, 3).tolist() == [list(colour) for colour in palette]


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'labels': np.full((4, 4), 3)}, r'labels \[3\] are no class'),
        ({'labels': np.zeros((4, 5), dtype=int)}, r'shape \(4, 4\)'),
        ({'labels': np.zeros((4, 4))}, 'integer labels'),
        ({'image': np.zeros((4, 4), dtype=np.uint8)}, r'\(H, W, 3\)'),
        ({'palette': PALETTE[:2]}, '2 colours for 3 classes'),
        ({'alpha': 1.5}, 'alpha'),
        ({'unseen': ['dig']}, "Did you mean 'dog'"),
        ({'unseen': [3]}, 'class 3 of only 3'),
    ],
)
def test_what_does_not_fit_is_an_error(changes: dict, says: str) -> None:
    arguments = {
        'image': grey(4, 4),
        'labels': np.zeros((4, 4), dtype=int),
        'classes': CLASSES,
        'palette': PALETTE,
    }
    with pytest.raises(ValueError, match=says):
        draw_segmentation(**(arguments | changes))


def test_unseen_classes_go_by_name_or_position() -> None:
    assert class_indices(CLASSES, ['sky', 0]) == {0, 2}
