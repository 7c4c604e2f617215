"""Pictures reach the segmentor as the config's own test transforms bring them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmcv
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config

from zs3_mmseg.apis.pipeline import PicturePipeline, as_batch, find_test_pipeline

RESIZE = {'type': 'Resize', 'scale': (2048, 112), 'keep_ratio': True}
TRANSFORMS = [
    {'type': 'LoadImageFromFile'},
    RESIZE,
    {'type': 'LoadAnnotations'},
    {'type': 'PackSegInputs'},
]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('size', [(150, 200), (1200, 900), (3, 5), (5, 900)])
def test_arrays_are_resized_as_mmcv_does(size: tuple[int, int]) -> None:
    bgr = noise(*size)
    read, item = PicturePipeline(TRANSFORMS)(bgr)
    expected = mmcv.imrescale(bgr, (2048, 112))
    np.testing.assert_array_equal(item['inputs'].permute(1, 2, 0), expected)
    np.testing.assert_array_equal(read, bgr[..., ::-1])
    sample = item['data_samples']
    assert (sample.ori_shape, sample.img_shape) == (size, expected.shape[:2])


@pytest.mark.parametrize(
    'reader',
    [
        [],
        [{'type': 'LoadImageFromFile'}],
        [{'type': 'mmcv.LoadImageFromFile'}],
        [{'type': LoadImageFromFile}],
        [{'type': 'LoadImageFromFile', 'to_float32': True}],
        # What mmseg's inference_model makes of a model's config.
        [{'type': 'LoadImageFromNDArray'}],
    ],
)
@pytest.mark.parametrize(
    'labels', [[], [{'type': 'LoadAnnotations'}], [{'type': 'LoadFolderMasks'}]]
)
def test_files_and_arrays_give_the_same(
    tmp_path: Path, reader: list, labels: list
) -> None:
    rgb = noise(30, 40)
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    pipeline = PicturePipeline([*reader, RESIZE, *labels, {'type': 'PackSegInputs'}])
    (read, item), (same, other) = pipeline(tmp_path / 'a.png'), pipeline(rgb[..., ::-1])
    np.testing.assert_array_equal(read, rgb)
    np.testing.assert_array_equal(same, rgb)
    np.testing.assert_array_equal(item['inputs'], other['inputs'])


def test_grey_pictures_are_shown_in_grey(tmp_path: Path) -> None:
    Image.fromarray(noise(3, 4)).save(tmp_path / 'a.png')
    reader = {'type': 'LoadImageFromFile', 'color_type': 'grayscale'}
    read, item = PicturePipeline([reader, {'type': 'PackSegInputs'}])(
        tmp_path / 'a.png'
    )
    assert read.shape == (3, 4, 3)
    assert item['inputs'].shape == (1, 3, 4)


def test_a_batch_holds_one_picture() -> None:
    batch = as_batch(PicturePipeline(TRANSFORMS)(noise(112, 112))[1])
    assert [len(batch[key]) for key in ('inputs', 'data_samples')] == [1, 1]


def test_the_pipeline_is_found_inside_wrappers() -> None:
    inner = {'type': 'ADE20KDataset', 'pipeline': TRANSFORMS}
    dataset = {'type': 'ZeroShotDataset', 'dataset': inner}
    found = find_test_pipeline(Config({'test_dataloader': {'dataset': dataset}}))
    assert [transform['type'] for transform in found] == [
        transform['type'] for transform in TRANSFORMS
    ]


def test_a_config_without_any_test_pipeline_is_refused() -> None:
    with pytest.raises(ValueError, match='test_pipeline'):
        find_test_pipeline(Config({'model': {}}))
