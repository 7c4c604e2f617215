"""Data sets without any image: the folder is named, and what it holds instead."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS

from zs3_mmseg.datasets.scan import build_dataset
from zs3_mmseg.engine.launch import build_loops

STOCK = [
    *('BaseSegDataset', 'ADE20KDataset', 'PascalVOCDataset', 'COCOStuffDataset'),
    *('CityscapesDataset', 'PascalContextDataset59', 'COCOObjectsDataset'),
]


@pytest.fixture(autouse=True)
def _mmseg_scope() -> None:
    if DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance('missing', scope_name='mmseg')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pictures of a suffix that nobody asks for, an empty folder and list."""
    for name in ('images/val', 'masks/val'):
        (tmp_path / name).mkdir(parents=True)
    for name in 'ab':
        (tmp_path / f'images/{name}.xyz').touch()
    (tmp_path / 'classes.txt').write_text('sky\ntree\n')
    (tmp_path / 'empty.txt').touch()
    return tmp_path


def wrapped(kind: str, inner: dict[str, Any]) -> dict[str, Any]:
    classes = DATASETS.get(inner['type']).METAINFO.get('classes') or ('sky', 'tree')
    split = dict(classes=list(classes), unseen=[])
    return {
        'nothing': inner,
        'repeat': dict(type='RepeatDataset', times=2, dataset=inner),
        'concat': dict(type='ConcatDataset', datasets=[inner]),
        'split': dict(type='ZeroShotDataset', phase='test', split=split, dataset=inner),
        'split, later': dict(
            type='ZeroShotDataset',
            phase='test',
            split=split,
            dataset={**inner, 'lazy_init': True},
        ),
    }[kind]


@pytest.mark.parametrize(
    'wrapper', ['nothing', 'repeat', 'concat', 'split', 'split, later']
)
@pytest.mark.parametrize('name', STOCK)
def test_a_folder_without_pictures_is_named(
    root: Path, name: str, wrapper: str
) -> None:
    prefix = dict(img_path='images', seg_map_path='masks')
    plain = dict(type=name, data_root=str(root), data_prefix=prefix, pipeline=[])
    listed = dict(plain, ann_file='empty.txt')
    with pytest.raises(FileNotFoundError, match=r'empty\.txt \(ann_file\) names no'):
        build_dataset(wrapped(wrapper, listed))
    if name in ('PascalVOCDataset', 'PascalContextDataset59'):
        return  # these have lists always
    with pytest.raises(FileNotFoundError) as error:
        build_dataset(wrapped(wrapper, plain))
    for words in (f'{root}/images', '2 .xyz', 'folders: val', 'img_suffix'):
        assert words in str(error.value)


def test_every_listed_file_is_looked_for(root: Path) -> None:
    for path in (root / 'images/a.png', root / 'masks/a.png', root / 'images/b.png'):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    (root / 'three.txt').write_text('a\nb\nc\n')
    config = dict(
        type='BaseSegDataset',
        data_root=str(root),
        ann_file='three.txt',
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        img_suffix='.png',
        pipeline=[dict(type='LoadAnnotations')],
    )
    message = r'masks/b\.png \(seg_map_path\) is missing, as 2 other files are; change'
    with pytest.raises(FileNotFoundError, match=message):
        build_dataset(wrapped('split', config))


@pytest.mark.parametrize('subset', ['val', ''])
def test_a_subset_without_pictures_is_named(root: Path, subset: str) -> None:
    config = dict(type='FolderSegDataset', data_root=str(root), subset=subset)
    with pytest.raises(FileNotFoundError) as error:
        build_dataset(config)
    held = 'is empty' if subset else '2 .xyz'
    assert str(root / 'images' / subset) in str(error.value)
    assert held in str(error.value)


def test_an_empty_list_of_a_subset_is_named(root: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / 'images/a.png')
    config = dict(type='FolderSegDataset', data_root=str(root), subset='empty')
    with pytest.raises(ValueError, match=r'empty\.txt lists no name'):
        build_dataset(config)


def test_data_sets_that_a_runner_builds_are_explained(root: Path) -> None:
    prefix = dict(img_path='images', seg_map_path='masks')
    config = dict(type='BaseSegDataset', data_root=str(root), data_prefix=prefix)

    class StockRunner:
        cfg = dict(val_dataloader=dict(dataset=config))

        @property
        def val_loop(self) -> Any:
            return DATASETS.build(config)

    with pytest.raises(FileNotFoundError, match=r'no image \*\.jpg found in .*images'):
        build_loops(StockRunner(), 'val')  # type: ignore[arg-type]
    build_loops(SimpleNamespace(cfg={}, val_loop=None), 'val')  # type: ignore[arg-type]
