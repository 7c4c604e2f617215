from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align as torchvision_align

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.region_classifiers import (
    CropClassifier,
    MaskAttentionClassifier,
    MaskPoolingClassifier,
    Regions,
    expanded_box,
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


def test_a_longer_box_ends_at_the_border() -> None:
    assert expanded_box((3, 2, 7, 4), 1.0, (6, 9)) == (3, 2, 7, 4)
    assert expanded_box((3, 2, 7, 4), 2.0, (6, 9)) == (1, 1, 9, 5)


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


def looking(pool: str = 'avg', **options: Any) -> MaskAttentionClassifier:
    """A tower that pools its patches, or, of random weights, its class token."""
    if pool == 'avg':
        return MaskAttentionClassifier('zs3-shapes-tiny', 'shapes', **options)
    torch.manual_seed(0)
    text = dict(context_length=8, vocab_size=64, width=32, heads=2, layers=1)
    vision = dict(layers=4, width=64, head_width=32, patch_size=16, image_size=112)
    arch = dict(embed_dim=32, vision_cfg=vision, text_cfg=text)
    return MaskAttentionClassifier(arch, None, **options)


@pytest.mark.parametrize('pool', ['avg', 'tok'])
@pytest.mark.parametrize('num_blocks', [1, 3])
def test_a_mask_of_the_whole_picture_sees_what_clip_sees(
    num_blocks: int, pool: str
) -> None:
    torch.manual_seed(0)
    masks = torch.ones(2, 3, 112, 112, dtype=torch.bool)
    masks[:, 1, :, 50:] = False
    masks[:, 2] = False  # an empty one gets the whole picture
    regions = regions_of(masks)
    classifier = looking(pool, num_blocks=num_blocks)
    found = classifier.features(regions)
    tower = classifier.tower
    seen = tower(tower.normalised(regions.image.pixels))
    for place in (0, 2):
        torch.testing.assert_close(found[:, place], seen, atol=1e-5, rtol=1e-5)
    assert (found[:, 1] - seen).abs().max() > 1e-3


@pytest.mark.parametrize('pool', ['avg', 'tok'])
def test_masks_do_not_see_each_other(pool: str) -> None:
    torch.manual_seed(0)
    masks = torch.zeros(1, 1, 112, 112, dtype=torch.bool)
    masks[..., :56, :56] = True
    classifier = looking(pool)
    regions = regions_of(masks)
    alone = classifier.features(regions)
    others = torch.cat([masks, ~masks, torch.ones_like(masks)], dim=1)
    beside = classifier.features(Regions(others, regions.image, ()))
    torch.testing.assert_close(beside[:, :1], alone)


def test_attention_of_masks_needs_a_transformer() -> None:
    with pytest.raises(ValueError, match=r'is a ResNet.* Or use CropClassifier'):
        MaskAttentionClassifier('RN50')
    with pytest.raises(ValueError, match=r'num_blocks must be in 1\.\.6, not 7'):
        looking(num_blocks=7)


def test_no_masks_give_no_scores() -> None:
    queries = ClassQueries(torch.ones(1, 128), torch.tensor([0]), torch.tensor([True]))
    masks = torch.zeros(1, 0, 8, 8, dtype=torch.bool)
    for classifier in (tiny(), looking(), MaskPoolingClassifier()):
        regions = Regions(masks, regions_of(masks).image, (torch.ones(1, 128, 1, 1),))
        assert classifier(regions, queries).shape == (1, 0, 1)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(style='maskcrop'), "style must be one of 'cropmask'"),
        (dict(expand=0.5), 'expand=0.5 must be >= 1'),
        (dict(style='mask', expand=1.5), "grows the boxes of style='cropmask'"),
        (dict(batch_size=0), 'batch_size must be >= 1'),
        (dict(scale=-1.0), 'scale must be > 0'),
        (dict(templates='imagenet_selected'), "Did you mean 'imagenet_select'"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)
