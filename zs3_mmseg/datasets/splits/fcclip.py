"""FC-CLIP's class names with their synonyms, and which of them its training knew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from zs3_mmseg.datasets.splits.name_files import read_names
from zs3_mmseg.datasets.splits.zero_shot_split import ZeroShotSplit, make_split

_FOLDER = Path(__file__).parents[2] / 'assets' / 'fcclip_names'
#: The names that the released models were trained with.
TRAINED = 'coco_133'
TRAINED_NAMES = tuple(read_names(_FOLDER / f'{TRAINED}.txt'))
TESTED = ('ade20k_150', 'voc12_20', 'voc12_21', 'context_59')


def exactly_seen(names: Sequence[str], trained: Sequence[str]) -> tuple[bool, ...]:
    """Tell of each name whether a synonym of it is one of a trained name.

    To the letter, as the released code compares them: "Cat" is not "cat".
    """
    known = {word for name in trained for word in name.split('|')}
    return tuple(not known.isdisjoint(name.split('|')) for name in names)


def fcclip_splits() -> Iterator[ZeroShotSplit]:
    """Make the released vocabularies; unseen is what training had no word of."""
    trained = TRAINED_NAMES
    source = 'FC-CLIP (NeurIPS 2023), names and synonyms of the released code'
    yield make_split(f'fcclip_{TRAINED}', trained, (), f'{source}, to train with')
    for name in TESTED:
        names = read_names(_FOLDER / f'{name}.txt')
        seen = exactly_seen(names, trained)
        unseen = [each for each, known in zip(names, seen, strict=True) if not known]
        yield make_split(
            f'fcclip_{name}', names, unseen, f'{source}; seen: also in COCO'
        )
