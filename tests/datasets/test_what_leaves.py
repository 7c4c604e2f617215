"""Whatever the masks, the split and the augmentation: which labels leave a data set."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS, TRANSFORMS

from zs3_mmseg.datasets import ZeroShotDataset
from zs3_mmseg.datasets.splits import ZeroShotSplit, make_split

NAMES = [f'class {letter}' for letter in 'abcdefg']
HIDDEN = {'inductive': 255, 'transductive': 254}


@TRANSFORMS.register_module()
class LoadFromMemory:
    """Not mmcv's loader, so that it cannot be told by its type."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        labels = results['labels'].copy()
        size = labels.shape
        image = np.zeros((*size, 3), np.uint8)
        fields = dict(img=image, gt_seg_map=labels, ori_shape=size, img_shape=size)
        return {**results, **fields, 'seg_fields': ['gt_seg_map']}


@DATASETS.register_module()
class MemoryDataset(BaseDataset):
    """Label maps that never were files."""

    def __init__(self, maps: list[np.ndarray], names: list[str], **kwargs: Any) -> None:
        self._maps = maps
        metainfo = dict(classes=names)
        super().__init__(metainfo=metainfo, serialize_data=False, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        return [
            # No string: there is no such file to be looked for.
            dict(labels=labels, img_path=Path(f'{index}.png'))
            for index, labels in enumerate(self._maps)
        ]


PLAIN = [dict(type='LoadFromMemory'), dict(type='PackSegInputs')]
AUGMENTED = [
    dict(type='LoadFromMemory'),
    dict(type='RandomResize', scale=(12, 9), ratio_range=(0.5, 2.0)),
    dict(type='RandomCrop', crop_size=(5, 6), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]


@pytest.fixture(autouse=True, scope='module')
def _mmseg_scope() -> None:
    if DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance('what_leaves', scope_name='mmseg')


@st.composite
def worlds(draw: st.DrawFn) -> tuple[ZeroShotSplit, list[str], list[np.ndarray]]:
    """A split, the names of a data set in another order, and its label maps."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(2, len(NAMES)))]
    chosen = draw(st.permutations(names))[: draw(st.integers(2, len(names)))]
    unseen = chosen[: draw(st.integers(1, len(chosen) - 1))]
    values = st.sampled_from([*range(len(names)), 255])
    maps = draw(st.lists(npst.arrays(np.uint8, (6, 8), elements=values), min_size=2))
    split = make_split('drawn', draw(st.permutations(chosen)), unseen)
    return split, list(names), maps


def leaves(
    world: tuple[ZeroShotSplit, list[str], list[np.ndarray]],
    pipeline: list[dict],
    **options: Any,
) -> list[np.ndarray]:
    """Return the label maps that leave a training data set."""
    split, names, maps = world
    inner = dict(type='MemoryDataset', maps=maps, names=names, pipeline=pipeline)
    # Wrappers inside are guarded as well.
    twice = dict(type='RepeatDataset', dataset=inner, times=1)
    wrapped = dict(type='ConcatDataset', datasets=[twice])
    dataset = ZeroShotDataset(wrapped, phase='train', split=split, **options)
    samples = [dataset[index] for index in range(len(maps))]
    return [sample['data_samples'].gt_sem_seg.data[0].numpy() for sample in samples]


@settings(max_examples=40)
@given(worlds(), st.sampled_from(['inductive', 'transductive']))
def test_no_unseen_label_leaves_training_whatever_the_augmentation(
    world: Any, setting: str
) -> None:
    split = world[0]
    allowed = {*split.seen_indices, 255, HIDDEN[setting]}
    for labels in leaves(world, AUGMENTED, setting=setting):
        assert set(np.unique(labels).tolist()) <= allowed


@settings(max_examples=40)
@given(worlds())
def test_first_exception_the_oracle_tells_the_truth(world: Any) -> None:
    split, names, maps = world
    for labels, truth in zip(
        leaves(world, PLAIN, setting='layout_oracle'), maps, strict=True
    ):
        for new, old in zip(labels.flat, truth.flat, strict=True):
            name = names[old] if old != 255 else None
            expected = split.classes.index(name) if name in split.classes else 255
            assert new == expected


@settings(max_examples=40)
@given(worlds(), st.sampled_from(['inductive', 'transductive']), st.data())
def test_second_exception_pseudo_labels_never_depend_on_hidden_truth(
    world: Any, setting: str, data: st.DataObject
) -> None:
    """Where truth is hidden stands the model's label; elsewhere nothing changes."""
    split, names, maps = world
    guesses = st.sampled_from([*range(len(split.classes)), 255])
    pseudo = [data.draw(npst.arrays(np.uint8, (6, 8), elements=guesses)) for _ in maps]
    with tempfile.TemporaryDirectory() as folder:
        for index, guess in enumerate(pseudo):
            Image.fromarray(guess).save(Path(folder, f'{index}.png'))
        sidecar = dict(model='m', settings={}, classes=split.classes)
        Path(folder, 'pseudo_labels.json').write_text(json.dumps(sidecar))
        filled = leaves(world, PLAIN, setting=setting, pseudo_label_dir=folder)
    hidden_everywhere = leaves(world, PLAIN, setting=setting)
    unseen = [names.index(name) for name in split.unseen]
    for labels, without, guess, truth in zip(
        filled, hidden_everywhere, pseudo, maps, strict=True
    ):
        hidden = np.isin(truth, unseen)
        assert np.array_equal(labels[~hidden], without[~hidden])
        kept = np.where(guess == 255, HIDDEN[setting], guess)
        assert np.array_equal(labels[hidden], kept[hidden])
