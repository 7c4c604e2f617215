"""Pictures reach the segmentor at the size that the config's own test has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmcv
from mmengine.config import Config

from zs3_mmseg.apis.pipeline import (
    as_batch,
    build_pipeline,
    find_test_pipeline,
    target_size,
)

RESIZE = {'type': 'Resize', 'scale': (2048, 112), 'keep_ratio': True}
TRANSFORMS = [
    {'type': 'LoadImageFromFile'},
    RESIZE,
    {'type': 'LoadAnnotations'},
    {'type': 'PackSegInputs'},
]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    short=st.integers(16, 700),
    long=st.integers(700, 4000),
)
def test_the_size_is_mmcvs_unless_a_side_falls_below_the_least(
    height: int, width: int, short: int, long: int
) -> None:
    new = target_size(height, width, short=short, long=long, least=8)
    theirs = mmcv.rescale_size((width, height), (long, short))
    assert new == (max(8, theirs[1]), max(8, theirs[0]))


def test_moderate_scales_give_the_pixels_of_mmcv() -> None:
    image = noise(150, 200)
    item = build_pipeline(TRANSFORMS)(image)
    expected = mmcv.imrescale(image[..., ::-1], (2048, 112))
    np.testing.assert_array_equal(item['inputs'].permute(1, 2, 0), expected)


def test_strong_shrinking_averages_and_does_not_sample() -> None:
    checkers = np.indices((1120, 1120)).sum(axis=0) % 2 * 255
    image = np.repeat(checkers[..., None], 3, axis=2).astype(np.uint8)
    shrunk = build_pipeline(TRANSFORMS)(image)['inputs']
    assert shrunk.shape == (3, 112, 112)
    assert shrunk.float().std() < 2


def test_the_sample_knows_the_original_shape() -> None:
    sample = build_pipeline(TRANSFORMS)(noise(30, 70))['data_samples']
    assert sample.ori_shape == (30, 70)
    assert sample.img_shape == (112, 261)


@pytest.mark.parametrize('size', [(1, 1), (1, 4000), (4000, 1), (3, 5)])
@pytest.mark.parametrize('transforms', [TRANSFORMS, [{'type': 'PackSegInputs'}]])
def test_no_side_is_smaller_than_a_patch(
    size: tuple[int, int], transforms: list
) -> None:
    inputs = build_pipeline(transforms, least=16)(noise(*size))['inputs']
    assert min(inputs.shape[1:]) >= 16
    assert max(inputs.shape[1:]) <= 4096


def test_without_a_resize_the_size_is_kept() -> None:
    inputs = build_pipeline([{'type': 'PackSegInputs'}], least=16)(noise(50, 70))
    assert inputs['inputs'].shape == (3, 50, 70)


def test_a_resize_that_gives_up_the_ratio_stays_as_it_is() -> None:
    squash = {'type': 'Resize', 'scale': (64, 48), 'keep_ratio': False}
    item = build_pipeline([squash, {'type': 'PackSegInputs'}])(noise(100, 30))
    assert item['inputs'].shape == (3, 48, 64)


def test_a_batch_holds_one_picture() -> None:
    batch = as_batch(build_pipeline(TRANSFORMS)(noise(112, 112)))
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
