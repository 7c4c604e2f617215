"""FSS-1000 as it is unpacked: folders of classes, grey masks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from official_layouts import GREY, fss1000

from mmengine.registry import DefaultScope

from zs3_mmseg.datasets import ClassPromptDataset, FSS1000Dataset
from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.datasets.splits.fss1000 import FSS1000

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadFolderMasks'),
    dict(type='PackSegInputs'),
]


@pytest.fixture(autouse=True)
def _mmseg_scope() -> None:
    if DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance('fss1000', scope_name='mmseg')


def files(root: Path, subset: str) -> dict[str, object]:
    return dict(
        type='FSS1000Dataset', data_root=str(root), subset=subset, pipeline=PIPELINE
    )


def test_each_picture_is_asked_for_its_class(tmp_path: Path) -> None:
    fss1000(tmp_path, {'abacus': 1, 'bus': 2, 'zucchini': 1})
    found = ClassPromptDataset(
        files(tmp_path, 'test'),
        phase='test',
        split='fss1000',
        sampling='exhaustive',
        min_pixels=0,
    )
    samples = [sample['data_samples'] for sample in found]
    assert [sample.prompt_name for sample in samples] == ['bus', 'bus']
    expected = np.kron(GREY >= 128, np.ones((20, 20), bool))
    for sample in samples:
        assert np.array_equal(sample.gt_sem_seg.data[0].numpy(), expected)
    trained = ClassPromptDataset(
        files(tmp_path, 'trn'), phase='train', split='fss1000', min_pixels=0
    )
    assert [s['data_samples'].prompt_name for s in trained] == ['zucchini']


def test_subsets_share_no_class() -> None:
    split = get_split('fss1000')
    assert {name: len(FSS1000[name]) for name in FSS1000} == dict(
        trn=520, val=240, test=240
    )
    assert split.unseen == FSS1000['test']
    assert FSS1000Dataset.METAINFO['classes'][1:] == split.classes
    assert len({*split.classes}) == 1000


def test_a_wrong_folder_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / 'fewshot_data').mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        FSS1000Dataset(str(tmp_path), 'val', pipeline=PIPELINE)
    assert re.search(
        f"{tmp_path} has no folder of 240 of 240 classes of subset 'val'",
        str(caught.value),
    )
    assert '\n' not in str(caught.value)
    fss1000(tmp_path, {'bus': 1})
    with pytest.raises(FileNotFoundError, match='holds a picture'):
        FSS1000Dataset(str(tmp_path), 'val', pipeline=PIPELINE)
    (tmp_path / 'bus/1.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'bus/1\.jpg has no mask'):
        FSS1000Dataset(str(tmp_path), 'test', pipeline=PIPELINE)
