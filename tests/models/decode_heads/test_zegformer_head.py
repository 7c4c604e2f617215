"""What ZegFormer's head promises, beside its recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import ZegFormerHead
from zs3_mmseg.models.decode_heads.query_mask_head import covered_pixels
from zs3_mmseg.models.region_classifiers import (
    LogitRegionClassifier,
    RegionClassifier,
    Regions,
)
from zs3_mmseg.models.segmentors.input_image import InputImage
from zs3_mmseg.utils.config_check import ConfigError

WIDTH, ROW = 8, 6


class Recorded(LogitRegionClassifier):
    """A second look with given logits ``(N, M, K)``."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.given = logits

    def logits(self, regions: Regions, queries: ClassQueries) -> Tensor:
        self.regions = regions
        return self.given


class Other(RegionClassifier):
    def forward(self, regions: Regions, queries: ClassQueries) -> Tensor:
        raise AssertionError


def head_of(**options: Any) -> ZegFormerHead:
    torch.manual_seed(0)
    small = dict(num_queries=5, num_layers=2, num_heads=2, feedforward_channels=8)
    defaults: dict[str, Any] = dict(small, embed_dim=ROW, num_groups=2, dropout=0.0)
    return ZegFormerHead([4, 4, 4, 4], WIDTH, **{**defaults, **options}).eval()


def maps(size: int = 8) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, 4, size >> level, size >> level) for level in range(4)]


def queries_of(rows: Tensor, *unseen: int) -> ClassQueries:
    seen = torch.ones(len(rows), dtype=torch.bool)
    seen[list(unseen)] = False
    rows = torch.nn.functional.normalize(rows, dim=-1)
    return ClassQueries(rows, torch.arange(len(rows)), seen)


@pytest.fixture
def rows() -> Tensor:
    return torch.randn(4, ROW, generator=torch.Generator().manual_seed(2))


def shown(size: tuple[int, int] = (32, 32)) -> InputImage:
    pixels, valid = torch.zeros(2, 3, *size), torch.tensor([size, size])
    return InputImage(pixels, valid, pixels, valid, (None,), ({}, {}))


METAS = [dict(img_shape=(32, 32))] * 2


@torch.no_grad()
def test_order_and_number_of_rows_change_nothing_else(rows: Tensor) -> None:
    head = head_of()
    logits = head.training_outputs(maps(), queries=queries_of(rows)).class_logits
    order = torch.tensor([2, 0, 3, 1])
    other = head.training_outputs(maps(), queries=queries_of(rows[order])).class_logits
    torch.testing.assert_close(other[..., :-1], logits[..., order])
    fewer = head.training_outputs(maps(), queries=queries_of(rows[:2])).class_logits
    torch.testing.assert_close(fewer[..., [0, 1, 2]], logits[..., [0, 1, 4]])


@torch.no_grad()
def test_a_class_scores_as_its_best_synonym(rows: Tensor) -> None:
    head, plain = head_of(), queries_of(rows)
    seen = torch.ones(3, dtype=torch.bool)
    both = ClassQueries(plain.embeddings, torch.tensor([0, 1, 1, 2]), seen)
    single = head.training_outputs(maps(), queries=plain).class_logits
    found = head.training_outputs(maps(), queries=both).class_logits
    best = torch.maximum(single[..., 1], single[..., 2])
    torch.testing.assert_close(found[..., 1], best)


@torch.no_grad()
@pytest.mark.parametrize(
    ('weights', 'expected'),
    [
        (dict(seen_weight=0.0, unseen_weight=0.0), lambda p, r, mean: p),
        (
            dict(seen_weight=1.0, unseen_weight=1.0, pool_seen=False),
            lambda p, r, mean: r,
        ),
        (
            dict(seen_weight=1.0, unseen_weight=0.0),
            lambda p, r, mean: torch.cat([mean.expand(-1, -1, 2), p[..., 2:]], dim=-1),
        ),
        (
            dict(),
            lambda p, r, mean: torch.cat(
                [
                    p[..., :2] ** (2 / 3) * mean ** (1 / 3),
                    p[..., 2:] ** (1 / 3) * r[..., 2:] ** (2 / 3),
                ],
                dim=-1,
            ),
        ),
    ],
)
def test_weights_join_both_looks_by_group(
    rows: Tensor, weights: dict, expected: Callable
) -> None:
    second = torch.randn(2, 5, 4)
    head = head_of(region_classifier=Recorded(second), **weights)
    queries = queries_of(rows, 2, 3)
    found = head.predict(maps(), METAS, None, queries=queries, image=shown())
    logits = head.training_outputs(maps(), queries=queries).class_logits[-1]
    first = logits.softmax(dim=-1)[..., :-1]
    both = torch.cat([second, logits[..., -1:]], dim=-1).softmax(dim=-1)[..., :-1]
    mean = both[..., :2].mean(dim=-1, keepdim=True)
    torch.testing.assert_close(found.class_scores, expected(first, both, mean))
    assert head.region_classifier.regions.masks.shape == (2, 5, 32, 32)


def test_only_unseen_classes_need_no_mean_of_seen_ones(rows: Tensor) -> None:
    head = head_of(region_classifier=Recorded(torch.zeros(2, 5, 4)))
    queries = queries_of(rows, 0, 1, 2, 3)
    found = head.predict(maps(), METAS, None, queries=queries, image=shown())
    assert found.class_scores.isfinite().all()


def test_no_channel_of_the_second_look_is_saved() -> None:
    options = dict(arch='zs3-shapes-tiny', pretrained='shapes')
    head = head_of(region_classifier=dict(type='CropClassifier', **options))
    assert head.region_classifier.tower.scale > 1
    plain = head_of()
    assert head.state_dict().keys() == plain.state_dict().keys()
    assert len([*head.parameters()]) == len([*plain.parameters()])


def test_masks_are_covered_where_they_are_likelier_than_not() -> None:
    masks = 5 * torch.randn(2, 3, 4, 4)
    full = torch.nn.functional.interpolate(masks, (9, 7), mode='bilinear')
    assert torch.equal(covered_pixels(masks, (9, 7)), full > 0)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_heads=3), 'num_heads=3 does not divide 8 channels'),
        (dict(num_groups=3), 'num_groups=3 does not divide'),
        (dict(seen_weight=1.5), r'seen_weight must be in 0\.\.1'),
        (dict(scale=0.0), 'scale must be > 0'),
        (dict(region_classifier=Other()), 'Other does not'),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head_of(**options)


def test_a_second_look_needs_the_image(rows: Tensor) -> None:
    head = head_of(region_classifier=Recorded(torch.zeros(2, 5, 4)))
    with pytest.raises(ConfigError, match=r'does not give: set model\.type'):
        head.predict(maps(), METAS, None, queries=queries_of(rows))
