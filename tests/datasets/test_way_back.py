"""Test pipelines: labels stay those of the file, and predictions get back to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmcv.transforms import BaseTransform
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS

from zs3_mmseg.datasets import ZeroShotDataset

NAMES = ('cat', 'dog', 'cow')
LOAD, MASKS = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')
PACK = dict(type='PackSegInputs')


@TRANSFORMS.register_module()
class CowsAreDogs(BaseTransform):
    """A transform that is meant to change labels."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        labels = results['gt_seg_map'].copy()
        labels[labels == 2] = 1
        return {**results, 'gt_seg_map': labels}


@pytest.fixture(autouse=True, scope='module')
def _scope() -> None:
    init_default_scope('mmseg')


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('pets')
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (20, 30, 3)).astype(np.uint8)).save(
        folder / 'a.jpg'
    )
    labels = np.arange(600).reshape(20, 30) % 3
    Image.fromarray(labels.astype(np.uint8)).save(folder / 'a.png')
    return folder


def dataset_of(root: Path, *pipeline: dict, phase: str = 'test') -> ZeroShotDataset:
    inner = dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='', seg_map_path=''),
        metainfo=dict(classes=NAMES),
        pipeline=[*pipeline],
    )
    split = dict(classes=NAMES, unseen=('cow',))
    return ZeroShotDataset(inner, phase=phase, split=split)


def labels_of(root: Path, *pipeline: dict) -> list[np.ndarray]:
    packed = dataset_of(root, *pipeline)[0]['data_samples']
    views = packed if isinstance(packed, list) else [packed]
    return [view.gt_sem_seg.data[0].numpy() for view in views]


RESIZE = dict(type='Resize', scale=(60, 36), keep_ratio=False)
FLIP = dict(type='RandomFlip', prob=1.0)


@pytest.mark.parametrize(
    'steps',
    [
        [RESIZE],
        [FLIP],
        [RESIZE, FLIP],
        [FLIP, RESIZE],
        [dict(FLIP, direction='vertical')],
        [dict(FLIP, direction='diagonal')],
        [dict(type='mmcv.Resize', scale_factor=0.5)],
        [dict(type='RandomResize', scale=(60, 40), ratio_range=(0.5, 2.0))],
        [dict(type='RandomChoiceResize', scales=[(45, 30)])],
        [dict(type='ResizeToMultiple', size_divisor=16)],
        [dict(type='ResizeShortestEdge', scale=8, max_size=99)],
        [dict(type='SegRescale', scale_factor=0.5)],
        [dict(type='LetterboxResize', size=32), 'canvas_shape'],
        [dict(type='PhotoMetricDistortion')],
        [dict(type='RGB2Gray')],
        [dict(type='CLAHE'), dict(type='AdjustGamma')],
        [dict(type='Normalize', mean=[0.0] * 3, std=[1.0] * 3, to_rgb=True)],
        [dict(type='RandomApply', transforms=[FLIP], prob=1.0)],
        [dict(type='RandomChoice', transforms=[[FLIP], [RESIZE]])],
    ],
    ids=str,
)
def test_masks_may_be_loaded_anywhere(root: Path, steps: list) -> None:
    pack = dict(PACK, meta_keys=('img_path', 'ori_shape', 'flip', 'flip_direction'))
    if steps[-1] == 'canvas_shape':
        pack['meta_keys'] += ('canvas_shape',)
        steps = steps[:-1]
    (right,) = labels_of(root, LOAD, *steps, MASKS, pack)
    for place in range(len(steps) + 1):
        mixed = [*steps[:place], MASKS, *steps[place:]]
        (labels,) = labels_of(root, LOAD, *mixed, pack)
        np.testing.assert_array_equal(labels, right)
    np.testing.assert_array_equal(right, np.asarray(Image.open(root / 'a.png')))


def test_masks_may_be_loaded_before_views_are_made(root: Path) -> None:
    views = dict(type='TestTimeAug', transforms=[[RESIZE], [dict(FLIP)], [PACK]])
    for labels in labels_of(root, LOAD, MASKS, views):
        np.testing.assert_array_equal(labels, np.asarray(Image.open(root / 'a.png')))


def test_labels_that_are_changed_on_purpose_stay_changed(root: Path) -> None:
    changed = dict(type='CowsAreDogs')
    for steps in ([changed, RESIZE, FLIP], [RESIZE, changed, FLIP], [FLIP, changed]):
        (labels,) = labels_of(root, LOAD, MASKS, *steps, PACK)
        assert labels.shape == (20, 30)
        assert set(np.unique(labels)) == {0, 1}
        np.testing.assert_array_equal(
            labels == 0, np.arange(600).reshape(20, 30) % 3 == 0
        )


ONE_WAY = [
    dict(type='RandomCrop', crop_size=(8, 8)),
    dict(type='CenterCrop', crop_size=8),
    dict(type='ForegroundCrop', size=(8, 8)),
    dict(type='Pad', size_divisor=16),
    dict(type='RandomRotate', prob=1.0, degree=20.0),
    dict(type='RandomRotFlip'),
    dict(type='RandomMosaic', prob=1.0),
    dict(type='RandomCutOut', prob=1.0, n_holes=1, cutout_shape=(2, 2)),
]


@pytest.mark.parametrize('step', ONE_WAY, ids=lambda step: step['type'])
def test_what_leads_nowhere_back_is_refused_in_testing(root: Path, step: dict) -> None:
    nested = dict(type='RandomApply', transforms=[step])
    views = dict(type='TestTimeAug', transforms=[[step], [PACK]])
    for steps in ([step, PACK], [nested, PACK], [views]):
        with pytest.raises(
            ValueError, match=f'pipeline: {step["type"]} cuts, turns or'
        ):
            dataset_of(root, LOAD, MASKS, *steps)
    dataset_of(root, LOAD, MASKS, step, PACK, phase='train')


@pytest.mark.parametrize(
    ('step', 'keys', 'missing'),
    [
        (RESIZE, ('img_path',), 'ori_shape'),
        (FLIP, ('ori_shape',), 'flip, flip_direction'),
        (dict(type='LetterboxResize', size=8), ('ori_shape',), 'canvas_shape'),
    ],
)
def test_notes_for_the_way_back_must_be_packed(
    root: Path, step: dict, keys: tuple[str, ...], missing: str
) -> None:
    with pytest.raises(ValueError, match=f'meta_keys lacks {missing}, without'):
        dataset_of(root, LOAD, step, MASKS, dict(PACK, meta_keys=keys))
