"""What FC-CLIP promises, beside its recordings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zs3_mmseg.models.backbones import OpenCLIPConvNeXt, OpenCLIPResNet
from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.conv_clip_classifier import ConvCLIPClassifier
from zs3_mmseg.models.decode_heads import FCCLIPHead
from zs3_mmseg.models.losses import MaskClassificationLoss, MaskTargets
from zs3_mmseg.models.region_classifiers import Regions
from zs3_mmseg.utils.config_check import ConfigError

DIM = 16
TEXT = dict(context_length=8, vocab_size=8, width=8, heads=1, layers=1)
CONVNEXT = dict(
    embed_dim=DIM,
    vision_cfg=dict(
        timm_model_name='convnext_atto',
        timm_pool='',
        timm_proj='mlp',
        image_size=32,
    ),
    text_cfg=TEXT,
)
RESNET = dict(
    embed_dim=DIM,
    vision_cfg=dict(
        image_size=64, layers=[1, 1, 1, 1], width=4, head_width=32, patch_size=None
    ),
    text_cfg=TEXT,
)
KINDS = {'convnext': (OpenCLIPConvNeXt, CONVNEXT), 'resnet': (OpenCLIPResNet, RESNET)}


def built(kind: str, **options: Any) -> tuple[Any, FCCLIPHead]:
    torch.manual_seed(0)
    backbone_type, arch = KINDS[kind]
    backbone = backbone_type(arch)
    head = FCCLIPHead(
        backbone.out_channels,
        8,
        embed_dim=DIM,
        num_queries=5,
        num_layers=2,
        num_heads=2,
        feedforward_channels=8,
        num_groups=2,
        region_classifier=ConvCLIPClassifier(arch),
        **options,
    )
    return backbone, head.eval()


def queries_of(counts: list[int], *unseen: int) -> ClassQueries:
    generator = torch.Generator().manual_seed(3)
    rows = F.normalize(torch.randn(sum(counts), DIM, generator=generator), dim=-1)
    seen = torch.ones(len(counts), dtype=torch.bool)
    seen[list(unseen)] = False
    owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return ClassQueries(rows, owners, seen)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [(64, 96), (160, 64)])
@torch.no_grad()
def test_images_of_any_size_have_masks_with_finite_names(
    kind: str, size: tuple[int, int]
) -> None:
    backbone, head = built(kind)
    maps = backbone(torch.randn(2, 3, *size))
    assert [m.shape[1] for m in maps] == [*backbone.out_channels]
    assert [m.shape[-2] for m in maps] == [size[0] // s for s in (4, 8, 16, 32)]
    meta = [dict(img_shape=size)] * 2
    found = head.predict(maps, meta, None, queries=queries_of([1, 2, 1], 2))
    assert found.masks.shape == (2, 5, size[0] // 4, size[1] // 4)
    assert found.class_scores.shape == (2, 5, 3)
    assert found.class_scores.isfinite().all()


@pytest.mark.parametrize('kind', KINDS)
def test_nothing_of_clip_learns(kind: str) -> None:
    backbone, head = built(kind)
    backbone.train()
    head.train()
    before = [v.clone() for v in backbone.state_dict().values()]
    maps = backbone(torch.randn(1, 3, 64, 64))
    outputs = head.training_outputs(maps, queries=queries_of([1, 1]))
    (outputs.class_logits.sum() + outputs.masks.sum()).backward()
    assert all(p.grad is None for p in backbone.parameters())
    learned = {n for n, p in head.named_parameters() if p.grad is not None}
    assert not [name for name in learned if 'region_classifier' in name]
    assert {'no_object', 'logit_scale', 'query_decoder.query_feat.weight'} <= learned
    after = backbone.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(('weight', 'of_head'), [(0.0, True), (1.0, False)])
@torch.no_grad()
def test_the_ends_of_the_ensemble(weight: float, of_head: bool) -> None:
    head = built('convnext', seen_weight=weight, unseen_weight=weight)[1]
    torch.manual_seed(1)
    logits, looked = 3 * torch.randn(1, 4, 4), 3 * torch.randn(1, 4, 3)
    seen = torch.tensor([True, False, True])
    masks = torch.randn(1, 4, 8, 8)
    regions = Regions(masks > 0, None, (masks[..., :2, :2],), mask_logits=masks)
    found = head.shares(logits, looked, seen, regions)
    whole = logits.softmax(dim=-1)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(1, 4))
    torch.testing.assert_close(found[..., -1], whole[..., -1])
    expected = whole[..., :-1]
    if not of_head:
        expected = looked.softmax(dim=-1) * (1 - whole[..., -1:])
    torch.testing.assert_close(found[..., :-1], expected)


@torch.no_grad()
def test_masks_that_cover_no_cell_can_be_left_to_the_head() -> None:
    head = built('convnext', skip_uncovered=True)[1]
    logits, looked = torch.randn(1, 2, 3), torch.randn(1, 2, 2)
    masks = torch.ones(1, 2, 4, 4)
    masks[:, 1] = -1
    regions = Regions(masks > 0, None, (masks,), mask_logits=masks)
    found = head.shares(logits, looked, torch.tensor([True, True]), regions)
    alone = logits.softmax(dim=-1)
    torch.testing.assert_close(found[:, 1], alone[:, 1])
    assert not torch.allclose(found[:, 0], alone[:, 0])


@pytest.mark.parametrize('kind', KINDS)
@torch.no_grad()
def test_a_synonym_more_never_lowers_its_class(kind: str) -> None:
    backbone, head = built(kind)
    maps = backbone(torch.randn(1, 3, 64, 64))
    more = queries_of([2, 1])
    fewer = ClassQueries(
        more.embeddings[[0, 2]], torch.arange(2), torch.ones(2, dtype=torch.bool)
    )
    logits = [
        (head.find(maps, each, every=False).class_logits[0][..., 0], each)
        for each in (fewer, more)
    ]
    assert (logits[1][0] >= logits[0][0]).all()
    masks = torch.randn(1, 3, 16, 16)
    regions = Regions(masks > 0, None, maps, mask_logits=masks)
    looked = [head.region_classifier.logits(regions, q)[..., 0] for q in (fewer, more)]
    assert (looked[1] >= looked[0]).all()


def attended(classifier: ConvCLIPClassifier, maps: Tensor, inside: Tensor) -> Tensor:
    """Run open_clip's own pooling on a map, which reads cells inside only."""
    pool = classifier.head.pool
    rows = maps.flatten(2).transpose(1, 2)[0]  # (hw, C)
    query = rows.mean(dim=0) + pool.positional_embedding[0]
    keys = (rows + pool.positional_embedding[1:])[inside.flatten()]
    width = len(query) // pool.num_heads
    parts = []
    for head in range(pool.num_heads):
        some = slice(head * width, (head + 1) * width)
        q, k = pool.q_proj(query)[some], pool.k_proj(keys)[:, some]
        weights = (k @ q / width**0.5).softmax(dim=0)
        parts.append(weights @ pool.v_proj(keys)[:, some])
    return pool.c_proj(torch.cat(parts))


@torch.no_grad()
def test_attention_pooling_reads_only_what_a_mask_covers() -> None:
    torch.manual_seed(0)
    classifier = ConvCLIPClassifier(RESNET)
    maps = torch.randn(1, 128, 2, 2)
    masks = torch.tensor([[[[1.0, -1], [1, 1]], [[-1, -1], [-1, -1]]]])
    regions = Regions(masks > 0, None, (maps,), mask_logits=masks)
    found = classifier.features(regions)[0]
    expected = attended(classifier, maps, masks[0, 0] > 0)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], classifier.head.pool.c_proj.bias)


def test_a_tower_of_another_kind_is_named() -> None:
    with pytest.raises(ConfigError, match='has a ModifiedResNet for images'):
        OpenCLIPConvNeXt(RESNET)
    with pytest.raises(ConfigError, match='VisionTransformer'):
        ConvCLIPClassifier('zs3-shapes-tiny')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(pixel_decoder='fpm'), "pixel_decoder must be one of 'deformable', 'fpn'"),
        (
            dict(pixel_decoder='fpn', pixel_decoder_cfg=dict(num_layers=1)),
            'pixel_decoder_cfg holds options of the deformable decoder',
        ),
        (dict(num_heads=3), 'num_heads=3 does not divide'),
        (dict(seen_weight=1.5), 'seen_weight must be in 0..1'),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    small = dict(num_queries=1, num_layers=1, num_heads=2, num_groups=2)
    with pytest.raises(ValueError, match=message):
        FCCLIPHead([4] * 4, 8, embed_dim=DIM, **{**small, **options})


def test_points_agree_with_all_pixels() -> None:
    """Of masks that are alike everywhere, points tell as much as pixels."""
    levels = torch.tensor([2.0, -1.0, 0.5])
    masks = levels[None, None, :, None, None].expand(1, 1, 3, 8, 8)
    targets = [
        MaskTargets(
            torch.tensor([1]),
            torch.ones(1, 32, 32, dtype=torch.bool),
            torch.zeros(32, 32, dtype=torch.bool),
        )
    ]
    logits = torch.randn(1, 1, 3, 4)
    options = dict(mask_loss='bce', dice_weight=0.0)
    torch.manual_seed(0)
    # Points near the border read halves of it, as nothing is outside.
    inside = MaskClassificationLoss(num_points=64, **options)
    inside.draw = lambda count, points, like: 0.25 + 0.5 * torch.rand(count, points, 2)
    pixels = MaskClassificationLoss(**options)
    found, expected = (loss(logits, masks, targets) for loss in (inside, pixels))
    torch.testing.assert_close(found, expected)
