"""LSeg's head: what goes with what, and what does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads.lseg_head import (
    SPATIAL_BLOCKS,
    LSegHead,
    SpatialBlock,
)


def head(**options: Any) -> LSegHead:
    torch.manual_seed(0)
    defaults: dict[str, Any] = dict(
        in_channels=[8] * 4,
        channels=8,
        embed_dim=6,
        post_process_channels=[4, 4, 6, 8],
    )
    return LSegHead(**{**defaults, **options}).eval()


def rows(count: int, width: int = 6) -> ClassQueries:
    made = torch.randn(count, width, generator=torch.Generator().manual_seed(count))
    return ClassQueries(made, torch.arange(count), torch.ones(count, dtype=torch.bool))


def tokens(grid: tuple[int, int] = (2, 4), images: int = 2) -> tuple[list, Tensor]:
    torch.manual_seed(1)
    maps = [torch.randn(images, 8, *grid) for _ in range(4)]
    return maps, torch.randn(images, 4, 8)


@pytest.mark.parametrize('block', [None, *SPATIAL_BLOCKS])
def test_order_of_classes_does_not_matter(block: str | None) -> None:
    model, queries = head(spatial_block=block, block_depth=3), rows(5)
    maps, classes = tokens()
    order = torch.tensor([3, 0, 4, 1, 2])
    scores = model.forward(maps, queries=queries, cls_tokens=classes)
    other = model.forward(maps, queries=queries.rows(order), cls_tokens=classes)
    assert scores.shape == (2, 5, 16, 32)
    torch.testing.assert_close(other, scores[:, order])


@pytest.mark.parametrize('kind', SPATIAL_BLOCKS)
def test_one_block_for_any_number_of_classes(kind: str) -> None:
    block = SpatialBlock(kind, depth=2)
    for count in (1, 2, 171):
        assert block(torch.randn(1, count, 3, 5)).shape == (1, count, 3, 5)
    once, none = SpatialBlock(kind, depth=1), SpatialBlock(kind, depth=0)
    none.load_state_dict(once.state_dict())
    maps = torch.randn(1, 3, 4, 4)
    assert torch.equal(once(maps), none(maps))


def test_only_the_bottleneck_looks_at_other_classes() -> None:
    maps = torch.randn(1, 4, 5, 5)
    for kind, alone in (('depthwise', True), ('bottleneck', False)):
        block = SpatialBlock(kind)
        assert torch.allclose(block(maps)[:, :1], block(maps[:, :1])) == alone


def test_the_scale_is_a_constant() -> None:
    model = head()
    assert model.scale == pytest.approx(14.285714)
    names = [*model.state_dict(), *dict(model.named_parameters())]
    assert not [name for name in names if 'scale' in name]


def test_pairs_have_rows_of_their_own() -> None:
    model, queries = head(), rows(3)
    maps, classes = tokens()
    pairs = queries.rows([2, 1]).against(queries.embeddings[:1])
    both = model.forward(maps, queries=pairs, cls_tokens=classes)
    everything = model.forward(maps, queries=queries, cls_tokens=classes)
    for image, own in enumerate((2, 1)):
        torch.testing.assert_close(both[image], everything[image, [0, own]])


@pytest.mark.parametrize(
    ('patch', 'grid'), [(4, (16, 8)), (8, (8, 4)), (16, (4, 2)), (32, (2, 1))]
)
def test_tokens_of_any_patch_reach_half_the_image(
    patch: int, grid: tuple[int, int]
) -> None:
    maps, classes = tokens(grid)
    fused = head(patch_size=patch).pixel_features(maps, classes)
    assert fused.shape[2:] == (grid[0] * patch // 2, grid[1] * patch // 2)


def test_maps_of_a_pyramid_need_no_tokens() -> None:
    model = head(in_channels=[4, 6, 8, 10], post_process_channels=None)
    maps = [
        torch.randn(1, width, 16 // 2**level, 8 // 2**level)
        for level, width in enumerate((4, 6, 8, 10))
    ]
    assert model.forward(maps, queries=rows(2)).shape == (1, 2, 32, 16)
    without = head(readout_type='ignore')
    assert without.forward(tokens()[0], queries=rows(2)).shape == (2, 2, 16, 32)


def test_weights_start_as_torch_draws_them() -> None:
    """mmcv would draw convolutions from a normal distribution with zero biases."""
    model = head()
    for _ in range(2):
        for name, weight in model.named_parameters():
            if name.endswith('conv.bias'):
                assert weight.abs().max() > 0, name
        model.init_weights()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(patch_size=14), 'patch_size must be one of'),
        (dict(spatial_block='wide'), 'spatial_block must be one of'),
        (dict(spatial_block='depthwise', block_depth=-1), 'block_depth must be >= 0'),
        (dict(spatial_block='depthwise', activation='gelu'), 'activation must be one'),
        (dict(readout_type='sum'), "readout_type must be one of 'project'"),
        (dict(void_pixels='others'), 'void_pixels must be one of'),
        (dict(scale=0.0), 'scale must be > 0'),
        (dict(in_channels=[8, 8]), 'in_channels is one number for each of 4 maps'),
        (dict(in_index=-1), 'in_index is one number for each of 4 maps'),
        (dict(post_process_channels=[4, 4]), 'post_process_channels is one number'),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        head(**options)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    ('grid', 'given', 'options', 'queries', 'message'),
    [
        # 112 pixels, and an image of a single patch.
        ((7, 7), True, {}, rows(2), 'multiples of 32. Set model.data_preprocessor'),
        ((1, 1), True, {}, rows(2), 'these are 4x4, 2x2, 1x1, 1x1'),
        ((2, 4), False, {}, rows(2), "decode_head.readout_type='ignore'"),
        ((2, 4), True, {}, rows(2, width=9), '6 channels and class embeddings 9'),
        (
            (2, 4),
            True,
            dict(void_pixels='background'),
            rows(2),
            "void_pixels='background' is for pairs",
        ),
    ],
)
def test_wrong_inputs_say_what_to_set(
    grid: tuple[int, int],
    given: bool,
    options: dict[str, Any],
    queries: ClassQueries,
    message: str,
) -> None:
    maps, classes = tokens(grid)
    with pytest.raises(ValueError, match=message) as raised:
        head(**options).forward(
            maps, queries=queries, cls_tokens=classes if given else None
        )
    assert '\n' not in str(raised.value)
