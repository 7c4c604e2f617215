import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from zs3_mmseg.datasets.labels import DATA_SETTINGS, LabelTable, make_table
from zs3_mmseg.datasets.splits import ZeroShotSplit, make_split
from zs3_mmseg.utils.labels import special_labels

NAMES = [f'class {letter}' for letter in 'abcdefghij']


def table(
    split: ZeroShotSplit,
    names: list[str] | None,
    phase: str = 'train',
    setting: str = 'inductive',
    ignore: int = 255,
) -> LabelTable:
    return make_table(
        split,
        names,
        phase=phase,
        setting=setting,
        ignore_values=[ignore],
        origin='Folder',
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[ZeroShotSplit, list[str], np.ndarray]:
    """A split, a data set with more names in another order, and a label map of it."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(2, len(NAMES)))]
    chosen = draw(st.permutations(names))[: draw(st.integers(2, len(names)))]
    unseen = chosen[: draw(st.integers(1, len(chosen) - 1))]
    values = st.sampled_from([*range(len(names)), 255])
    labels = draw(npst.arrays(np.uint8, (4, 5), elements=values))
    return make_split('drawn', draw(st.permutations(chosen)), unseen), names, labels


@given(worlds(), st.sampled_from(['train', 'test']), st.sampled_from(DATA_SETTINGS))
def test_each_pixel_gets_the_label_of_its_name(
    world: tuple[ZeroShotSplit, list[str], np.ndarray], phase: str, setting: str
) -> None:
    split, names, labels = world
    made = table(split, names, phase, setting)
    made.check(labels, 'mask.png')
    for new, old in zip(made.apply(labels).flat, labels.flat, strict=True):
        name = names[old] if old != 255 else None
        if name not in split.classes:
            expected = 255
        elif name in split.seen or phase == 'test':
            expected = split.classes.index(name)
        else:
            true_label = split.classes.index(name)
            hidden = dict(inductive=255, transductive=254, unseen_location=254)
            expected = hidden.get(setting, true_label)
        assert new == expected


@given(worlds(), st.sampled_from(['inductive', 'transductive', 'unseen_location']))
def test_no_unseen_label_leaves_zero_shot_training(
    world: tuple[ZeroShotSplit, list[str], np.ndarray], setting: str
) -> None:
    split, names, labels = world
    made = table(split, names, 'train', setting)
    assert not np.isin(made.apply(labels), split.unseen_indices).any()


@pytest.mark.parametrize('phase', ['train', 'test'])
@pytest.mark.parametrize('bad', [3, 254])
def test_unknown_values_name_the_file_and_the_values(phase: str, bad: int) -> None:
    made = table(make_split('x', ['a', 'b', 'c'], ['c']), ['a', 'b', 'c'], phase)
    labels = np.array([[0, 1], [bad, 255]], dtype=np.uint8)
    with pytest.raises(ValueError, match=rf'd/m\.png: label values {bad} .*0 to 2'):
        made.check(labels, 'd/m.png')


@pytest.mark.parametrize(
    'labels',
    [
        np.zeros((2, 2, 3), np.uint8),
        np.zeros((2, 2), np.float32),
        np.array([[-1]]),
        np.array([[70_000]]),
    ],
)
def test_maps_of_another_kind_are_refused(labels: np.ndarray) -> None:
    made = table(make_split('x', ['a', 'b'], ['b']), ['a', 'b'])
    with pytest.raises(ValueError, match=r'm\.png'):
        made.check(labels, 'm.png')


def test_without_names_labels_are_split_indices() -> None:
    made = table(make_split('x', ['a', 'b', 'c'], ['b']), None)
    assert made.apply(np.array([[0, 1, 2, 255]])).tolist() == [[0, 255, 2, 255]]


def test_more_than_254_classes_use_16_bits() -> None:
    names = [f'class {index}' for index in range(300)]
    split = make_split('wide', names[::-1], names[:10])
    made = table(split, names, 'train', 'transductive', ignore=65535)
    labels = np.array([[0, 254, 255, 299, 65535]], dtype=np.uint16)
    made.check(labels, 'm.png')
    new = made.apply(labels)
    assert new.dtype == np.uint16
    ignore, unlabelled = special_labels(300)
    assert new.tolist() == [[unlabelled, 45, 44, 0, ignore]]


def test_a_training_set_may_lack_unseen_classes_only() -> None:
    split = make_split('x', ['a', 'b', 'c'], ['c'])
    assert table(split, ['a', 'b']).apply(np.array([[0, 1]])).tolist() == [[0, 1]]
    for names, phase in ((['a', 'c'], 'train'), (['a', 'b'], 'test')):
        with pytest.raises(ValueError, match='Folder has no class'):
            table(split, names, phase)


def test_missing_class_is_named_with_the_closest() -> None:
    split = make_split('x', ['bicycle', 'b'], ['b'])
    with pytest.raises(ValueError, match=r"Did you mean 'bicyle'"):
        table(split, ['bicyle', 'b'])


def test_one_name_cannot_be_two_classes() -> None:
    split = make_split('x', ['table', 'diningtable', 'b'], ['b'])
    with pytest.raises(ValueError, match=r"'dining table' is both"):
        table(split, ['dining table', 'b'])


def test_ignore_value_cannot_be_a_class() -> None:
    split = make_split('x', ['a', 'b'], ['b'])
    with pytest.raises(ValueError, match='ignore_index 0 must lie above the 2 labels'):
        table(split, ['a', 'b'], ignore=0)
