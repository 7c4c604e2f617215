"""``ShapesDataset`` as mmseg sees it, and its files on disk."""

from __future__ import annotations

import hashlib
import multiprocessing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS

from zs3_mmseg.datasets.shapes.dataset import ShapesDataset
from zs3_mmseg.datasets.shapes.scene import generate, render_scene, run_in_ranges
from zs3_mmseg.datasets.shapes.vocabulary import CLASSES

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs', meta_keys=('img_path', 'caption')),
]


def _build(root: Path, **kwargs: Any) -> ShapesDataset:
    config = dict(type='ShapesDataset', data_root=str(root), workers=1, **kwargs)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return DATASETS.build(config)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob('*') if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def test_samples_are_the_rendered_scenes(tmp_path: Path) -> None:
    root = tmp_path / 'a folder'
    dataset = _build(root, subset='test_hard', num_images=3, seed=5, pipeline=PIPELINE)
    assert len(dataset) == 3
    for index in range(3):
        scene, sample = render_scene(5, 'test_hard', index), dataset[index]
        # mmseg's images are BGR.
        pixels = sample['inputs'].numpy()[::-1].transpose(1, 2, 0)
        labels = sample['data_samples'].gt_sem_seg.data[0].numpy()
        np.testing.assert_array_equal(pixels, scene.image)
        np.testing.assert_array_equal(labels, scene.mask)
        assert sample['data_samples'].caption == scene.caption


def test_classes_of_a_subset_get_their_labels_and_palette(tmp_path: Path) -> None:
    chosen = ['bricks', 'star']
    dataset = _build(
        tmp_path, num_images=1, metainfo=dict(classes=chosen), lazy_init=True
    )
    assert dataset.label_map[CLASSES.index('star')] == 1
    assert dataset.metainfo['palette'] == [
        ShapesDataset.METAINFO['palette'][CLASSES.index(name)] for name in chosen
    ]
    assert not any(tmp_path.iterdir()), 'a lazy data set must not draw anything'


def test_any_number_of_processes_draws_the_same_files(tmp_path: Path) -> None:
    folders = [
        generate(tmp_path / str(workers), 'val', 70, workers=workers)
        for workers in (1, 2)
    ]
    assert _digest(folders[0]) == _digest(folders[1])


def test_two_ranks_starting_at_once_leave_one_complete_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context('fork')
    ranks = [
        context.Process(target=generate, args=(tmp_path, 'val', 12)) for _ in range(3)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert len(list((folder / 'images').iterdir())) == 12
    assert _digest(folder) == _digest(generate(tmp_path / 'alone', 'val', 12))


def test_files_are_drawn_once(tmp_path: Path) -> None:
    folder = generate(tmp_path, 'val', 2)
    marked = folder / 'images' / '000000.png'
    cv2.imwrite(str(marked), np.zeros((2, 2), np.uint8))
    before = _digest(folder)
    assert _digest(generate(tmp_path, 'val', 2)) == before


def test_a_dying_run_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('zs3_mmseg.datasets.shapes.scene.write_png', die)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path, 'val', 2, workers=1)
    assert not any(path.is_dir() for path in tmp_path.iterdir())
    assert len(list((generate(tmp_path, 'val', 2) / 'labels').iterdir())) == 2


def test_deleted_files_are_noticed(tmp_path: Path) -> None:
    folder = generate(tmp_path, 'val', 2)
    (folder / 'images' / '000001.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'expected 2 images.*found 1'):
        _build(tmp_path, subset='val', num_images=2)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(subset='tset'), "'tset'.*Did you mean 'test'"),
        (dict(subset='clip_icons'), "subset must be one of .*not 'clip_icons'"),
        (dict(num_images=0), 'num_images >= 1'),
        (dict(seed=-1), 'seed >= 0'),
    ],
)
def test_wrong_arguments_are_errors_before_anything_is_drawn(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ShapesDataset(str(tmp_path), **wrong)
    assert not any(tmp_path.iterdir())


def test_a_failure_in_a_worker_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        run_in_ranges(_divide, 200, workers=2)


def _divide(start: int, stop: int) -> float:
    return (stop - start) / (start - 128)
