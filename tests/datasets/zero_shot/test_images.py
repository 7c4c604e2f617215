import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_folder import MASK, PIPELINE, Folder, concat, labels, repeat, wrap
from torch.utils.data import DataLoader

from mmengine.dataset import BaseDataset
from mmseg.datasets import BaseSegDataset

from zs3_mmseg.utils.cache import cache_dir
from zs3_mmseg.utils.random_state import Draw


def three_masks() -> list[np.ndarray]:
    """The second one holds the unseen class 'cat', label 0."""
    return [np.full((2, 2), value, np.uint8) for value in (1, 0, 3)]


def test_drop_image_leaves_out_images_with_unseen(folder: Folder) -> None:
    inner = concat(repeat(folder(three_masks(), 'one')), folder(three_masks(), 'two'))
    dataset = wrap(inner, unseen_policy='drop_image')
    found = [labels(dataset[index])[0][0] for index in range(len(dataset))]
    assert found == [1, 0, 1, 0, 1, 0]
    assert dataset.get_data_info(1)['img_path'].endswith('2.png')


def test_drop_image_index_follows_the_content(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv('ZS3_MMSEG_CACHE', str(tmp_path / 'cache'))
    assert len(wrap(folder(three_masks()), unseen_policy='drop_image')) == 2
    kept = list((cache_dir() / 'class_pixels').iterdir())
    assert len(kept) == 1
    # The same content elsewhere is known, and not looked at again.
    with monkeypatch.context() as patch:
        patch.setattr('zs3_mmseg.datasets.scan.read_labels', None)
        moved = wrap(folder(three_masks(), 'moved'), unseen_policy='drop_image')
        assert len(moved) == 2
    changed = three_masks()
    changed[0][:] = 0
    assert len(wrap(folder(changed), unseen_policy='drop_image')) == 1


def test_drop_image_that_leaves_nothing(folder: Folder) -> None:
    masks = [np.zeros((2, 2), np.uint8)]
    with pytest.raises(ValueError, match='leaves no image'):
        wrap(folder(masks), unseen_policy='drop_image')


def test_lazy_init_reads_nothing_before_it_is_asked(folder: Folder) -> None:
    config = folder(lazy_init=True, data_prefix=dict(img_path='no', seg_map_path='no'))
    dataset = wrap(config, lazy_init=True)
    assert dataset.metainfo['classes'] == ('tvmonitor', 'dog', 'cat')
    with pytest.raises(FileNotFoundError):
        len(dataset)


@pytest.mark.parametrize(
    ('indices', 'expected'), [(2, [0, 10]), (-1, [20]), ([2, 0], [20, 0])]
)
def test_subsets(folder: Folder, indices: Any, expected: list[int]) -> None:
    dataset = wrap(folder(three_masks()))
    subset = dataset.get_subset(indices)
    colours = [subset[index]['inputs'].max().item() for index in range(len(subset))]
    assert colours == expected
    assert len(dataset) == 3


@pytest.mark.parametrize('index', [3, -4])
def test_index_out_of_range(folder: Folder, index: int) -> None:
    with pytest.raises(IndexError):
        wrap(folder(three_masks()))[index]


def test_negative_index_counts_from_the_end(folder: Folder) -> None:
    assert wrap(folder(three_masks()))[-1]['inputs'].max() == 20


def test_pickles_for_workers(folder: Folder) -> None:
    dataset = pickle.loads(pickle.dumps(wrap(folder(three_masks()))))
    assert labels(dataset[0]) == [[1, 1], [1, 1]]


def test_workers_load_the_same_labels(folder: Folder) -> None:
    dataset = wrap(folder([MASK, MASK, MASK]))
    loader = DataLoader(dataset, batch_size=None, num_workers=1)
    for sample in loader:
        assert labels(sample) == [[255, 1, 255], [0, 255, 255]]


def test_augmentation_follows_the_draw(folder: Folder) -> None:
    pipeline = [*PIPELINE[:2], dict(type='RandomFlip', prob=0.5), PIPELINE[2]]
    dataset = wrap(folder(pipeline=pipeline))

    def flips() -> list[bool]:
        draws = [Draw(0, draw=number, seed=3) for number in range(12)]
        return [dataset[draw]['data_samples'].flip for draw in draws]

    first = flips()
    before = torch.get_rng_state()
    assert flips() == first
    assert len(set(first)) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_test_images_are_never_replaced(folder: Folder) -> None:
    dataset = wrap(folder(), phase='test')
    assert isinstance(dataset.dataset, BaseDataset)
    assert dataset.dataset.test_mode


def test_takes_a_built_data_set(folder: Folder) -> None:
    config = folder()
    del config['type']
    assert labels(wrap(BaseSegDataset(**config))[0]) == [[255, 1, 255], [0, 255, 255]]
