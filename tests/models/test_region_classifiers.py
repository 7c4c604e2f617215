from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align as torchvision_align

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.region_classifiers import (
    CropClassifier,
    MaskPoolingClassifier,
    Regions,
    mask_box,
    roi_align,
)
from zs3_mmseg.models.segmentors.input_image import InputImage


def test_pooling_is_the_mean_below_the_mask() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 4, 3, 5)
    masks = torch.rand(2, 3, 6, 10) < 0.4
    masks[1, 2] = False
    queries = ClassQueries(
        embeddings=torch.randn(3, 4),
        query_to_class=torch.tensor([0, 1, 1]),
        seen_mask=torch.tensor([True, False]),
    )
    classifier = MaskPoolingClassifier(scale=5.0)
    scores = classifier(Regions(masks, None, (features,)), queries)
    for image in range(2):
        for mask in range(3):
            if not masks[image, mask].any():
                assert scores[image, mask].tolist() == [0, 0]
                continue
            # Each patch stands for 2 x 2 pixels.
            pixels = features[image].repeat_interleave(2, 1).repeat_interleave(2, 2)
            mean = pixels[:, masks[image, mask]].mean(dim=1)
            cosines = 5 * F.cosine_similarity(queries.embeddings, mean[None])
            first, second = cosines[0], torch.maximum(cosines[1], cosines[2])
            expected = torch.stack([first, second]).softmax(dim=0)
            torch.testing.assert_close(scores[image, mask], expected)


@pytest.mark.parametrize('scale', [0, -1.0, float('nan')])
def test_a_scale_must_be_positive(scale: float) -> None:
    with pytest.raises(ValueError, match='scale must be > 0'):
        MaskPoolingClassifier(scale=scale)


@pytest.mark.parametrize('seed', range(4))
def test_a_box_is_resampled_as_by_torchvision(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    picture = torch.randn(3, 23, 31, generator=generator)
    corners = torch.rand(4, generator=generator) * torch.tensor([15, 11, 16, 12])
    left, top, width, height = corners.long().tolist()
    box = (left, top, left + width + 1, top + height + 1)
    for size in ((8, 8), (40, 5)):
        theirs = torchvision_align(
            picture[None], [torch.tensor([box]).float()], size, aligned=True
        )[0]
        torch.testing.assert_close(roi_align(picture, box, size), theirs)


def test_a_box_ends_where_the_last_column_begins() -> None:
    mask = torch.zeros(6, 9, dtype=torch.bool)
    whole = (0, 0, 9, 6)
    assert mask_box(mask) == whole
    mask[2:5, 3] = True
    assert mask_box(mask) == whole
    mask[4, 7] = True
    assert mask_box(mask) == (3, 2, 7, 4)


def tiny(**options: Any) -> CropClassifier:
    return CropClassifier('zs3-shapes-tiny', 'shapes', **options)


def regions_of(masks: torch.Tensor, **more: Any) -> Regions:
    pixels = 255 * torch.rand(len(masks), 3, *masks.shape[2:])
    valid = torch.tensor([masks.shape[2:]] * len(masks))
    image = InputImage(pixels, valid, pixels, valid, (None,), ({},) * len(masks))
    return Regions(masks, image, (), **more)


@pytest.mark.parametrize('style', ['mask', 'crop', 'cropmask'])
def test_what_is_hidden_has_the_mean_colour(style: str) -> None:
    masks = torch.zeros(1, 2, 40, 40, dtype=torch.bool)
    masks[0, 0, 10:30, 5:35] = True
    first, empty = tiny(style=style).pictures(regions_of(masks))
    assert first.shape == (3, 112, 112)
    assert (empty == 0).all() == (style != 'crop')
    assert ((first == 0).float().mean() > 0.1) == (style == 'mask')


@pytest.mark.parametrize('style', ['mask', 'crop', 'cropmask'])
def test_batches_change_nothing_and_empty_masks_stay_finite(style: str) -> None:
    torch.manual_seed(0)
    masks = torch.rand(2, 3, 32, 48) < 0.5
    masks[1, 2] = False
    names = ('star', 'circle|disc', 'boat')
    classes = torch.tensor([True, True, False])
    rows = F.normalize(torch.randn(4, 128), dim=-1)
    queries = ClassQueries(rows, torch.tensor([0, 1, 1, 2]), classes, names=names)
    regions = regions_of(masks)
    for templates in (None, 'single'):
        options = dict(style=style, templates=templates)
        one, many = (tiny(batch_size=n, **options)(regions, queries) for n in (1, 32))
        torch.testing.assert_close(one, many, atol=1e-4, rtol=1e-4)
        assert many.shape == (2, 3, 3)
        assert many.isfinite().all()
        sums = many.sum(dim=-1)
        torch.testing.assert_close(sums, torch.tensor([[1.0] * 3, [1.0, 1.0, 0.0]]))


def test_no_masks_give_no_scores() -> None:
    queries = ClassQueries(torch.ones(1, 128), torch.tensor([0]), torch.tensor([True]))
    masks = torch.zeros(1, 0, 8, 8, dtype=torch.bool)
    assert tiny()(regions_of(masks), queries).shape == (1, 0, 1)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(style='maskcrop'), "style must be one of 'cropmask'"),
        (dict(batch_size=0), 'batch_size must be >= 1'),
        (dict(scale=-1.0), 'scale must be > 0'),
        (dict(templates='imagenet_selected'), "Did you mean 'imagenet_select'"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)
