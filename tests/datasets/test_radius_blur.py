"""The blur of ZS3Net's training images."""

from __future__ import annotations

import numpy as np
import pytest

from zs3_mmseg.datasets.transforms import RandomRadiusBlur


def spot() -> np.ndarray:
    image = np.zeros((9, 9, 3), dtype=np.uint8)
    image[4, 4] = 240
    return image


def test_it_spreads_as_often_and_as_far_as_asked() -> None:
    np.random.seed(0)  # noqa: NPY002 - transforms draw from there
    blur = RandomRadiusBlur(prob=0.5, max_radius=1.0)
    results = [blur(dict(img=spot()))['img'] for _ in range(200)]
    peaks = np.array([image[4, 4, 0] for image in results])
    # Radii near 0 change nothing either.
    assert 60 <= (peaks < 240).sum() <= 120
    assert len(np.unique(peaks)) > 20
    # A Gaussian of radius 1 leaves about 1 / (2 pi) at its centre.
    assert 240 / 8 < peaks.min() < 240 / 4
    assert all(int(image[..., 0].sum()) <= 250 for image in results)


def test_probability_zero_changes_nothing() -> None:
    image = RandomRadiusBlur(prob=0)(dict(img=spot()))['img']
    np.testing.assert_array_equal(image, spot())


@pytest.mark.parametrize('options', [dict(prob=1.5), dict(max_radius=-1)])
def test_wrong_options_are_named(options: dict) -> None:
    with pytest.raises(ValueError, match='RandomRadiusBlur needs prob in 0'):
        RandomRadiusBlur(**options)
