"""The published splits, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zs3_mmseg.datasets.shapes.vocabulary import CLASSES as SHAPES20
from zs3_mmseg.datasets.splits.classes import (
    ADE150,
    CAGNET_CONTEXT33,
    CITYSCAPES19,
    COCO80,
    COCO_STUFF171,
    COCO_STUFF182,
    CONTEXT59,
    VOC20,
)
from zs3_mmseg.datasets.splits.fcclip import fcclip_splits
from zs3_mmseg.datasets.splits.fss1000 import FSS1000
from zs3_mmseg.datasets.splits.name_files import split_from_folder
from zs3_mmseg.datasets.splits.zero_shot_split import (
    ZeroShotSplit,
    make_split,
    split_from_dict,
)
from zs3_mmseg.utils.names import did_you_mean

_COCO_STUFF_UNSEEN = (
    *('cow', 'giraffe', 'suitcase', 'frisbee', 'skateboard', 'carrot', 'scissors'),
    *('cardboard', 'clouds', 'grass', 'playingfield', 'river', 'road', 'tree'),
    'wall-concrete',
)
# Nested: the first K names are the K-unseen split.
_ZS3_VOC_UNSEEN = (
    *('cow', 'motorbike', 'aeroplane', 'sofa', 'cat', 'tvmonitor', 'train', 'bottle'),
    *('chair', 'pottedplant'),
)
_ZS3_CONTEXT_UNSEEN = (
    *('cow', 'motorbike', 'sofa', 'cat', 'boat', 'fence', 'bird', 'tvmonitor'),
    *('aeroplane', 'keyboard'),
)
# Cascade-CLIP lists class indices, which give these names in mmseg's order of the 59
# classes; perhaps they were meant for another order.
_CONTEXT_CASCADE_UNSEEN = (
    *('aeroplane', 'bed', 'bedclothes', 'boat', 'bottle', 'car', 'cloth', 'cow'),
    *('keyboard', 'plate'),
)
_SHAPES_UNSEEN = {
    'a': ('car', 'mushroom', 'butterfly', 'rocket', 'bricks'),
    'b': ('star', 'fish', 'umbrella', 'key', 'sand'),
    'c': ('heart', 'house', 'boat', 'flower', 'water'),
}


def _published() -> Iterator[ZeroShotSplit]:
    """Make every split of the table."""
    yield make_split(
        'voc12_15_5',
        VOC20,
        VOC20[15:],
        'SPNet (CVPR 2019), as used by CaGNet, ZegFormer and ZegCLIP; background is '
        'no class',
    )
    yield make_split(
        'cocostuff_156_15',
        COCO_STUFF171,
        _COCO_STUFF_UNSEEN,
        'SPNet (CVPR 2019), in the 171-class form of ZegFormer and ZegCLIP',
    )
    yield make_split(
        'cocostuff_167_15',
        COCO_STUFF182,
        _COCO_STUFF_UNSEEN,
        'SPNet (CVPR 2019), as used by CaGNet: on the 182 labels of the pixel maps, '
        'eleven of which never occur',
    )
    for count in (2, 4, 6, 8, 10):
        source = f'ZS3Net (NeurIPS 2019), {count} unseen; background is a seen class'
        yield make_split(
            f'voc12_zs3_{count}',
            ('background', *VOC20),
            _ZS3_VOC_UNSEEN[:count],
            source,
        )
        yield make_split(
            f'context_zs3_{count}',
            ('background', *CONTEXT59),
            _ZS3_CONTEXT_UNSEEN[:count],
            source,
        )
    yield make_split(
        'context59_49_10',
        CONTEXT59,
        _ZS3_CONTEXT_UNSEEN,
        'OTSeg (ECCV 2024), the ten unseen names of ZS3Net without background',
    )
    yield make_split(
        'context59_cascade',
        CONTEXT59,
        _CONTEXT_CASCADE_UNSEEN,
        'Cascade-CLIP (ICML 2024); not comparable with context59_49_10',
    )
    yield make_split(
        'cagnet_context33',
        CAGNET_CONTEXT33,
        ('cow', 'motorbike', 'sofa', 'cat'),
        'CaGNet (ACM MM 2020), 29 seen and 4 unseen of a 33-class Pascal-Context',
    )
    yield from _folds()
    yield make_split(
        'fss1000',
        (*FSS1000['trn'], *FSS1000['val'], *FSS1000['test']),
        FSS1000['test'],
        'FSS-1000 (CVPR 2020); seen are 520 classes to train and 240 to validate, as '
        'drawn by HSNet (ICCV 2021) and used by LSeg',
    )
    yield from _whole()
    yield from fcclip_splits()
    for letter, unseen in _SHAPES_UNSEEN.items():
        yield make_split(
            f'shapes_{letter}', SHAPES20, unseen, 'the procedural data set Shapes'
        )


def _folds() -> Iterator[ZeroShotSplit]:
    """Make the few-shot folds; ids in the literature count from 1, 0 is background."""
    for fold in range(4):
        yield make_split(
            f'pascal5i_{fold}',
            VOC20,
            VOC20[5 * fold : 5 * fold + 5],
            'OSLSM (BMVC 2017): PASCAL-5i',
        )
        yield make_split(
            f'coco20i_{fold}',
            COCO80,
            COCO80[fold::4],
            'FWB (ICCV 2019): COCO-20i, interleaved classes, as used by BAM and ESDA',
        )
        yield make_split(
            f'coco20i_contiguous_{fold}',
            COCO80,
            COCO80[20 * fold : 20 * fold + 20],
            'COCO-20i in blocks of 20 classes, an option of the BAM and ESDA code',
        )


def _whole() -> Iterator[ZeroShotSplit]:
    """Make the class lists without unseen classes, for tests on another data set."""
    for name, classes in (
        ('voc12_20', VOC20),
        ('voc12_21', ('background', *VOC20)),
        ('context_59', CONTEXT59),
        ('context_60', ('background', *CONTEXT59)),
        ('cocostuff_171', COCO_STUFF171),
        ('coco_80', COCO80),
        ('coco_81', ('background', *COCO80)),
        ('ade20k_150', ADE150),
        ('cityscapes_19', CITYSCAPES19),
    ):
        yield make_split(name, classes, (), 'all classes, in the label order of mmseg')


_TABLE = {split.name: split for split in _published()}
_SAME = {'context59_otseg': 'context59_49_10', 'shapes': 'shapes_a'}


def split_names() -> list[str]:
    """Return the name of every split in the table, sorted."""
    return sorted([*_TABLE, *_SAME])


def get_split(name: str) -> ZeroShotSplit:
    """Return a published split.

    Args:
        name: such as ``'voc12_15_5'``; see :func:`split_names`.

    Raises:
        KeyError: if there is no such split; the message lists the closest names.
    """
    found = _TABLE.get(_SAME.get(name, name))
    if found is None:
        raise KeyError(
            f'no split is called {name!r}.{did_you_mean(name, split_names())} '
            f'Known are {", ".join(split_names())}; a dict with classes and unseen '
            'defines one of your own'
        )
    return found


def resolve_split(split: str | Mapping[str, Any] | ZeroShotSplit) -> ZeroShotSplit:
    """Return the split that a config means: a name, a dict, or a split itself.

    A dict has ``classes`` and ``unseen``, or ``folder`` with these names in text files,
    see :func:`~zs3_mmseg.datasets.splits.name_files.split_from_folder`.

    Raises:
        KeyError: if no split has that name.
        ValueError: if the dict makes no split.
        FileNotFoundError: if the folder has no ``classes.txt``.
        TypeError: if it is none of the three.
    """
    if isinstance(split, ZeroShotSplit):
        return split
    if isinstance(split, str):
        return get_split(split)
    if isinstance(split, Mapping):
        if 'folder' not in split:
            return split_from_dict(split)
        surplus = sorted({*split} - {'folder', 'name'})
        if surplus:
            raise ValueError(
                f'split has folder and {", ".join(surplus)}: the names come from the '
                f'text files of {split["folder"]!r}, or from the dict, not from both'
            )
        return split_from_folder(split['folder'], split.get('name'))
    raise TypeError(
        'split must be a name, a dict with classes and unseen, or a ZeroShotSplit, '
        f'got {type(split).__name__}'
    )


def plain_split(split: ZeroShotSplit) -> str | dict[str, Any]:
    """Return what metainfo and checkpoints carry: the name, or a plain dict."""
    return split.name if _TABLE.get(split.name) == split else split.as_dict()
