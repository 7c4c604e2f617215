"""The walk through wrappers agrees with the samples that mmengine's wrappers give."""

from __future__ import annotations

import numpy as np
import pytest

from mmengine.dataset import (
    BaseDataset,
    ClassBalancedDataset,
    ConcatDataset,
    RepeatDataset,
)

from zs3_mmseg.datasets.wrappers import children, leaves, over_samples

CONFIG = dict(
    type='ZeroShotDataset',
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(type='RepeatDataset', dataset=dict(type='A', dataset='a name')),
            dict(type='Mosaic', pipeline=['mix'], dataset=dict(type='B', pipeline=[])),
        ],
    ),
)


class Numbers(BaseDataset):
    def load_data_list(self) -> list[dict]:
        return [dict(number=int(n)) for n in self.ann_file.split()]

    def get_cat_ids(self, idx: int) -> list[int]:
        return [0]


def numbers(dataset: BaseDataset) -> np.ndarray:
    return np.array([dataset.get_data_info(i)['number'] for i in range(len(dataset))])


ONE, TWO = Numbers('3 5'), Numbers('7')


def test_configs_are_walked_by_key() -> None:
    assert [leaf['type'] for leaf in leaves(CONFIG)] == ['A', 'B']
    assert [leaf['type'] for leaf in leaves(CONFIG, stop_at='pipeline')] == [
        'A',
        'Mosaic',
    ]
    keys = [key for key, _ in children(CONFIG['dataset'])]
    assert keys == ['datasets.0', 'datasets.1']


@pytest.mark.parametrize(
    'wrapped', [ConcatDataset([ONE, TWO, ONE]), RepeatDataset(ONE, times=3)]
)
def test_rows_are_those_of_the_samples(wrapped: ConcatDataset | RepeatDataset) -> None:
    rows = over_samples(wrapped, numbers, needed_by='this test')
    assert rows.tolist() == [wrapped[i]['number'] for i in range(len(wrapped))]


def test_samples_that_a_wrapper_chooses_have_no_rows() -> None:
    chosen = ClassBalancedDataset(Numbers('3 5'), oversample_thr=0.1)
    with pytest.raises(TypeError, match=r'this test .* ClassBalancedDataset'):
        over_samples(chosen, numbers, needed_by='this test')
