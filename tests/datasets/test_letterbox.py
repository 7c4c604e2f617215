import numpy as np
import pytest
import torch

from zs3_mmseg.datasets.transforms import LetterboxResize
from zs3_mmseg.models.segmentors.inference import to_original


@pytest.mark.parametrize('size', [(50, 37), (33, 60), (40, 40)])
def test_scores_come_back_to_where_the_image_was(size: tuple[int, int]) -> None:
    """A ramp over the image is the same ramp after going there and back."""
    ramp = np.add.outer(np.arange(size[0]), 2 * np.arange(size[1]))
    image = np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8)
    results = LetterboxResize(96)(dict(img=image, ori_shape=size))
    assert results['img'].shape == (96, 96, 3)
    scores = torch.from_numpy(results['img'][..., 0])[None, None]
    back = to_original(scores, results, align_corners=True)
    assert back.shape[-2:] == size
    # Sides are cut down to multiples of 8, which shifts by a few pixels at most.
    inside = np.s_[: size[0] - 6, : size[1] - 6]
    assert np.abs(back[0, 0].numpy() - ramp)[inside].max() < 9


def test_too_narrow_is_an_error() -> None:
    image = np.zeros((300, 4, 3), np.uint8)
    with pytest.raises(ValueError, match='too narrow'):
        LetterboxResize(96)(dict(img=image))
    with pytest.raises(ValueError, match='>= 8'):
        LetterboxResize(4)
