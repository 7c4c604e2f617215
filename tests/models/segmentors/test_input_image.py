"""The image that heads get back from normalised inputs, and masks found in it."""

from __future__ import annotations

import pytest
import torch

from mmseg.models import SegDataPreProcessor

from zs3_mmseg.models.segmentors.inference import slide_windows
from zs3_mmseg.models.segmentors.input_image import input_image

HEIGHT, WIDTH = 6, 9
FLIPS = {None: (), 'horizontal': (2,), 'vertical': (1,), 'diagonal': (1, 2)}


def pictures(count: int = 2) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), generator=random)


def prepared(images, *, swap: bool, flip: str | None):
    """BGR images as a pipeline and mmseg's preprocessor hand them over, padded."""
    preprocessor = SegDataPreProcessor(
        mean=[10.0, 20.0, 30.0], std=[2.0, 3.0, 4.0], bgr_to_rgb=swap, size=(8, 12)
    )
    inputs = images.flip(1).flip([d + 1 for d in FLIPS[flip]]).float()
    mean, std = preprocessor.mean, preprocessor.std
    inputs = ((inputs.flip(1) if swap else inputs) - mean) / std
    padded = torch.nn.functional.pad(inputs, (0, 3, 0, 2))
    meta = dict(img_padding_size=(0, 3, 0, 2))
    if flip is not None:
        meta |= dict(flip=True, flip_direction=flip)
    return preprocessor, padded, [meta] * len(images)


@pytest.mark.parametrize('swap', [True, False])
@pytest.mark.parametrize('flip', FLIPS)
def test_proposers_see_the_picture_itself_once(swap: bool, flip: str | None) -> None:
    images = pictures()
    preprocessor, inputs, metas = prepared(images, swap=swap, flip=flip)
    windows = slide_windows((8, 12), (5, 7), (3, 5))
    found = input_image(inputs, metas, preprocessor, windows)
    shown = []

    def propose(picture: torch.Tensor) -> torch.Tensor:
        shown.append(picture)
        return torch.stack([picture[0] > 127, picture[1] < 50])

    masks = found.proposals(propose)
    assert len(shown) == len(images)
    for picture, image in zip(shown, images, strict=True):
        torch.testing.assert_close(picture, image.float(), atol=1e-4, rtol=0)
    # The same masks, made of each window's own pixels.
    assert len(masks) == len(found.pixels) == len(windows) * len(images)
    for own, pixels, (rows, columns) in zip(
        masks, found.pixels, found.valid.tolist(), strict=True
    ):
        inside = torch.zeros(5, 7, dtype=torch.bool)
        inside[:rows, :columns] = True
        assert torch.equal(own[0], (pixels[0].round() > 127) & inside)
        assert torch.equal(own[1], (pixels[1].round() < 50) & inside)
        assert not pixels[:, ~inside].any()


def test_pictures_may_have_different_numbers_of_masks() -> None:
    preprocessor, inputs, metas = prepared(pictures(), swap=True, flip=None)
    counts = iter([0, 2])
    masks = input_image(inputs, metas, preprocessor).proposals(
        lambda picture: torch.ones(next(counts), *picture.shape[1:], dtype=torch.bool)
    )
    assert [tuple(own.shape) for own in masks] == [(0, 8, 12), (2, 8, 12)]
    assert masks[1].sum() == 2 * HEIGHT * WIDTH
