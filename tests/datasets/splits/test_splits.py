import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmseg.datasets import (
    ADE20KDataset,
    CityscapesDataset,
    COCOStuffDataset,
    PascalContextDataset,
    PascalContextDataset59,
    PascalVOCDataset,
)

from zs3_mmseg.datasets import COCOObjectsDataset
from zs3_mmseg.datasets.splits import (
    ZeroShotSplit,
    canonical,
    find_name,
    get_split,
    make_split,
    plain_split,
    resolve_split,
    split_names,
)

DESIGNED = [
    'voc12_15_5',
    'cocostuff_156_15',
    'cocostuff_167_15',
    'context59_49_10',
    'context59_otseg',
    'context59_cascade',
    'cagnet_context33',
    'fss1000',
    'shapes',
    *(f'shapes_{letter}' for letter in 'abc'),
    *(f'{name}_zs3_{k}' for name in ('voc12', 'context') for k in (2, 4, 6, 8, 10)),
    *(
        f'{name}_{fold}'
        for name in ('pascal5i', 'coco20i', 'coco20i_contiguous')
        for fold in range(4)
    ),
]


# Vocabularies of a release, with synonyms in each name.
FCCLIP = [
    f'fcclip_{name}'
    for name in ('ade20k_150', 'coco_133', 'context_59', 'voc12_20', 'voc12_21')
]

# Whole class lists, and the data set of mmseg that numbers its classes so.
WHOLE = {
    'voc12_20': PascalVOCDataset,
    'voc12_21': PascalVOCDataset,
    'context_59': PascalContextDataset59,
    'context_60': PascalContextDataset,
    'cocostuff_171': COCOStuffDataset,
    'coco_80': COCOObjectsDataset,
    'coco_81': COCOObjectsDataset,
    'ade20k_150': ADE20KDataset,
    'cityscapes_19': CityscapesDataset,
}


def test_table_has_exactly_the_designed_names() -> None:
    assert split_names() == sorted([*DESIGNED, *FCCLIP, *WHOLE])


@pytest.mark.parametrize('name', WHOLE)
def test_whole_lists_hold_every_class_and_no_unseen_one(name: str) -> None:
    split = get_split(name)
    official = [c.strip() for c in WHOLE[name].METAINFO['classes']]
    if split.classes[0] != 'background':
        official = [c for c in official if c != 'background']
    assert list(split.seen) == official
    assert len(split.classes) == int(name.rpartition('_')[2])
    assert not split.unseen
    assert split.source


@pytest.mark.parametrize('name', DESIGNED)
def test_every_class_is_seen_or_unseen_and_the_source_is_named(name: str) -> None:
    split = get_split(name)
    assert sorted(split.seen + split.unseen) == sorted(split.classes)
    assert split.unseen
    assert split.source


@pytest.mark.parametrize(
    ('name', 'dataset'),
    [
        ('voc12_zs3_2', PascalVOCDataset),
        ('context_zs3_2', PascalContextDataset),
        ('context59_otseg', PascalContextDataset59),
        ('cocostuff_156_15', COCOStuffDataset),
    ],
)
def test_class_order_is_that_of_mmseg(name: str, dataset: type) -> None:
    assert get_split(name).classes == tuple(dataset.METAINFO['classes'])


@pytest.mark.parametrize(
    ('name', 'dataset'),
    [
        ('pascal5i_0', PascalVOCDataset),
        ('cagnet_context33', PascalContextDataset59),
        ('voc12_15_5', PascalContextDataset59),
        ('voc12_15_5', COCOStuffDataset),
        ('coco20i_1', COCOStuffDataset),
    ],
)
def test_aliases_resolve_a_split_in_other_spellings(name: str, dataset: type) -> None:
    classes = dataset.METAINFO['classes']
    found = [find_name(class_name, classes) for class_name in get_split(name).classes]
    assert None not in found
    assert len(set(found)) == len(found)


def test_shapes_is_split_a_and_things_precede_grounds() -> None:
    split = get_split('shapes')
    assert split == get_split('shapes_a')
    assert split.classes[-4:] == ('grass', 'sand', 'water', 'bricks')
    assert split.unseen == ('car', 'mushroom', 'butterfly', 'rocket', 'bricks')


@pytest.mark.parametrize('spelling', ['potted_plant', 'Potted Plant', 'potted-plant'])
def test_canonical_ignores_case_and_separators(spelling: str) -> None:
    assert canonical(spelling) == 'pottedplant'


def test_closest_spelling_wins() -> None:
    stuff = COCOStuffDataset.METAINFO['classes']
    assert stuff[find_name('table', stuff)] == 'table'
    assert stuff[find_name('diningtable', stuff)] == 'dining table'


def test_synonyms_match_any_of_their_words() -> None:
    assert find_name('settee|couch', ['chair', 'sofa']) == 1
    assert find_name('sofa', ['chair', 'settee|couch']) == 1


WORDS = st.sampled_from(
    ['tv', 'TV', 't-v', 'tvmonitor', 'sofa', 'couch', 'cat', '', ' ']
)
NAMES = st.one_of(WORDS, st.tuples(WORDS, WORDS).map('|'.join).filter(str.strip))


@given(WORDS.filter(str.strip), st.lists(NAMES, max_size=5))
def test_the_closest_spelling_is_found(name: str, candidates: list[str]) -> None:
    """Against the definition, candidate by candidate."""

    def words(text: str) -> list[str]:
        return [word.strip() for word in text.split('|')]

    plain: list[Callable[[str], str]] = [
        lambda text: text,
        lambda text: re.sub(r'[\s_-]+', '', text).lower(),
        canonical,
    ]
    if any(text.strip() and '' in words(text) for text in candidates):
        return  # an empty synonym is an error of its own
    places = [i for i, text in enumerate(candidates) if text == name][:1]
    for spelling in plain:
        places = places or [
            i
            for i, text in enumerate(candidates)
            if text.strip() and spelling(name) in map(spelling, words(text))
        ]
    if len(places) > 1:
        with pytest.raises(ValueError, match='could be any of'):
            find_name(name, candidates)
    else:
        assert find_name(name, candidates) == (places[0] if places else None)


def test_two_equally_close_names_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"'tv' could be any of 'TV', 'T V'"):
        find_name('tv', ['TV', 'T V'])


def test_unknown_split_names_the_closest() -> None:
    with pytest.raises(KeyError, match=r"Did you mean 'voc12_15_5'"):
        get_split('voc12_15-5')


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(classes=['a', 'b'], unseen=['c']), "unseen name 'c' is no class"),
        (dict(classes=['truck', 'b'], unseen=['truk']), "Did you mean 'truck'"),
        (dict(classes=['a', 'a'], unseen=['a']), 'classes lists a more than once'),
        (dict(classes=['a', 'b'], unseen=['b', 'b']), 'unseen lists b more than once'),
        (dict(classes=['a', 'b'], unseen=['b'], seen=['a', 'b']), 'overlap in b'),
        (dict(classes=['a', 'b', 'c'], unseen=['b'], seen=['a']), 'neither .*: c'),
        (dict(classes=['a', ''], unseen=['a']), 'non-empty strings'),
        (dict(classes=['a', 3], unseen=['a']), 'non-empty strings, got 3'),
        (dict(classes=[], unseen=[]), 'has no classes'),
        (dict(classes='ab', unseen=['a']), 'must be a list of names'),
        (dict(classes=['a']), 'needs unseen'),
        (dict(classes=['a'], unseen=[], unsen=[]), "Did you mean 'unseen'"),
        (dict(name='mine'), 'needs classes and unseen'),
        (dict(folder='x', classes=['a']), 'split has folder and classes: .* both'),
    ],
)
def test_wrong_splits_say_what_is_wrong(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_split(config)


def test_own_split_takes_aliases_and_keeps_its_order() -> None:
    split = resolve_split(dict(classes=['tv', 'sofa', 'cat'], unseen=['cat', 'couch']))
    assert split.unseen == ('sofa', 'cat')
    assert split.seen_indices == (0,)
    assert split.seen_mask() == [True, False, False]


@given(st.lists(st.text('abc', min_size=1), min_size=1, unique=True), st.data())
def test_plain_form_makes_the_same_split_again(
    names: list[str], data: st.DataObject
) -> None:
    unseen = [name for name in names if data.draw(st.booleans())]
    seen = [name for name in names if name not in unseen]
    split = ZeroShotSplit('own', tuple(names), tuple(seen), tuple(unseen))
    assert resolve_split(plain_split(split)) == split


def test_plain_form_of_a_published_split_is_its_name() -> None:
    assert plain_split(get_split('context59_otseg')) == 'context59_49_10'


def test_a_split_that_only_borrows_a_name_is_written_out() -> None:
    own = make_split('voc12_15_5', ['a', 'b'], ['b'])
    assert isinstance(plain_split(own), dict)


def test_fingerprint_tells_order_and_roles_apart() -> None:
    prints = {
        make_split('x', classes, unseen).fingerprint
        for classes, unseen in (
            (['a', 'b'], ['b']),
            (['b', 'a'], ['b']),
            (['a', 'b'], ['a']),
            (['a', 'b'], []),
        )
    }
    assert len(prints) == 4


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match='got int'):
        resolve_split(3)


def test_ordered_as_takes_order_and_spelling_of_other_classes() -> None:
    split = make_split('toy', ['tv', 'cow', 'sky'], ['sky', 'tv'], 'a paper')
    ordered = split.ordered_as(['sky', 'cow', 'tv_monitor'])
    assert ordered == make_split(
        'toy', ['sky', 'cow', 'tv_monitor'], ['sky', 'tv_monitor'], 'a paper'
    )
    assert ordered.unseen_indices == (0, 2)


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (['sky', 'tv'], r"only in the split: \['cow'\]; only in the data set: none"),
        (['sky', 'tv', 'cow', 'cat'], r"split: none; only in the data set: \['cat'\]"),
        (['sky', 'tv', 'ox'], r"\['cow'\]; only in the data set: \['ox'\]"),
        ([], "'tv', 'cow', 'sky'"),
    ],
)
def test_ordered_as_names_what_differs(classes: list[str], message: str) -> None:
    split = make_split('toy', ['tv', 'cow', 'sky'], ['sky'])
    with pytest.raises(ValueError, match=message):
        split.ordered_as(classes)
