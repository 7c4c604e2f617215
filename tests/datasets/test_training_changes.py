"""The random transforms of ESDA's training."""

import numpy as np
import pytest

from zs3_mmseg.datasets.transforms import (
    ForegroundCrop,
    RandomGaussianBlur,
    RandomRescale,
)


def sample(labels: np.ndarray) -> dict:
    image = np.repeat(labels[..., None] * 50 + 20, 3, axis=2).astype(np.uint8)
    return dict(img=image, gt_seg_map=labels, seg_fields=['gt_seg_map'])


@pytest.fixture
def blob() -> np.ndarray:
    labels = np.zeros((80, 90), np.uint8)
    labels[40:50, 60:70] = 1
    return labels


@pytest.fixture(autouse=True)
def _seed() -> None:
    np.random.seed(0)  # noqa: NPY002


def test_crop_keeps_the_foreground(blob: np.ndarray) -> None:
    kept = []
    for _ in range(30):
        results = ForegroundCrop((40, 50))(sample(blob.copy()))
        assert results['img'].shape == (40, 50, 3)
        assert (results['img'][..., 0] == results['gt_seg_map'] * 50 + 20).all()
        kept.append(results['gt_seg_map'].sum())
    assert min(kept) >= 85
    # A single draw loses some of it now and then.
    once = [
        ForegroundCrop((40, 50), max_draws=1)(sample(blob))['gt_seg_map'].sum()
        for _ in range(30)
    ]
    assert min(once) < 85


def test_small_images_are_padded_on_all_sides() -> None:
    labels = np.ones((10, 20), np.uint8)
    results = ForegroundCrop((15, 24), pad_val=[1, 2, 3])(sample(labels))
    assert results['gt_seg_map'].shape == (15, 24)
    assert (results['gt_seg_map'][2:12, 2:22] == 1).all()
    assert (results['gt_seg_map'] == 255).sum() == 15 * 24 - 200
    assert results['img'][0, 0].tolist() == [1, 2, 3]


def test_rescale_stays_in_its_range(blob: np.ndarray) -> None:
    heights = set()
    for _ in range(50):
        results = RandomRescale((0.9, 1.1))(sample(blob))
        assert results['img'].shape[:2] == results['gt_seg_map'].shape
        heights.add(results['img'].shape[0])
        assert {*np.unique(results['gt_seg_map'])} <= {0, 1}
    assert min(heights) >= 72
    assert max(heights) <= 88
    assert len(heights) > 8


def test_blur_happens_as_often_as_asked(blob: np.ndarray) -> None:
    changed = [
        (RandomGaussianBlur(0.5)(sample(blob))['img'] != sample(blob)['img']).any()
        for _ in range(60)
    ]
    assert 15 < sum(changed) < 45


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: ForegroundCrop((40,)), 'two sizes'),
        (lambda: ForegroundCrop((4, 4), min_kept=2), 'min_kept'),
        (lambda: RandomRescale((1.1, 0.9)), 'ascending'),
        (lambda: RandomGaussianBlur(kernel_size=4), 'odd'),
        (lambda: RandomGaussianBlur(prob=2), 'prob'),
    ],
)
def test_options_out_of_range(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build()
