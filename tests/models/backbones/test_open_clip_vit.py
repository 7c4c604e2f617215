from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mmseg.registry import MODELS

from zs3_mmseg.models.backbones import LAST_ATTENTION, OpenCLIPViT
from zs3_mmseg.models.backbones.blocks import replaced_block
from zs3_mmseg.models.towers import resize_positions

TOWERS = {
    'plain': dict(),
    'patch 7, QuickGELU': dict(patch_size=7, image_size=28, quick_gelu=True),
    'patch 16': dict(patch_size=16, image_size=48),
    'no square': dict(image_size=[24, 40]),
    'layer scale': dict(ls_init_value=0.3),
    'no first norm': dict(no_ln_pre=True),
    'average': dict(pool_type='avg'),
    'average, then norm': dict(
        pool_type='avg', final_ln_after_pool=True, no_ln_pre=True
    ),
    'patch dropout': dict(patch_dropout=0.5),
    'fixed positions': dict(pos_embed_type='sin_cos_2d'),
    'custom blocks': dict(qk_norm=True, scale_fc=True),
}


@pytest.fixture
def build(tiny_config):
    def make(vision: dict | None = None, **options) -> OpenCLIPViT:
        torch.manual_seed(0)
        return OpenCLIPViT(tiny_config(**(vision or {})), **options).eval()

    return make


@pytest.mark.parametrize('tower', TOWERS)
@torch.no_grad()
def test_vanilla_equals_open_clip_at_native_size(tower: str, build) -> None:
    ours = build(TOWERS[tower], out_indices=(0, 2, -1), out_global=True)
    theirs = ours.visual
    image = torch.randn(2, 3, *theirs.image_size)
    first, last, dense, token = ours(image)
    reference = theirs.forward_intermediates(image)
    raw = reference['image_intermediates']
    normed = theirs.forward_intermediates(image, normalize_intermediates=True)
    tokens = normed['image_intermediates'][-1].movedim(1, -1) @ theirs.proj
    for actual, expected in (
        (first, raw[0]),
        (last, raw[2]),
        (dense, tokens.movedim(-1, 1)),
        (token, theirs(image)),
    ):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('tower', ['plain', 'average'])
@pytest.mark.parametrize('name', LAST_ATTENTION)
@torch.no_grad()
def test_global_token_is_open_clips_whatever_the_strategy(
    tower: str, name: str, build
) -> None:
    backbone = build(TOWERS[tower], last_attn=name, out_global=True)
    image = torch.randn(2, 3, 32, 32)
    expected = backbone.visual(image)
    torch.testing.assert_close(backbone(image)[-1], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(last_attn='naclip', out_indices=(0,), cls_embed_twice=True),
        dict(prompts=dict(num_tokens=2, depth=1)),
        dict(low_rank=2, replace_cls=(1,), priors=(2,)),
    ],
    ids=lambda options: '-'.join(options) or 'plain',
)
@torch.no_grad()
def test_the_image_token_is_open_clips_whatever_was_added(options: dict, build) -> None:
    backbone = build(**options)
    for path in backbone.low_rank or ():
        path.up.add_(1)
    image = torch.randn(2, 3, 32, 32)
    expected = backbone.visual(image)
    torch.testing.assert_close(backbone.image_token(image), expected)


@pytest.mark.parametrize('name', LAST_ATTENTION)
@torch.no_grad()
def test_batch_mates_do_not_influence_each_other(name: str, build) -> None:
    backbone = build(last_attn=name, out_global=True)
    images = torch.randn(3, 3, 40, 24)
    together = backbone(images)
    alone = [backbone(image[None]) for image in images]
    for index, output in enumerate(together):
        expected = torch.cat([outputs[index] for outputs in alone])
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ('name', 'full'),
    [
        ('vanilla', True),
        ('maskclip', True),
        ('maskclip_v', False),
        ('sclip', True),
        ('clearclip', False),
        ('kk', False),
        ('naclip', False),
        ('nonly', False),
    ],
)
def test_residual_and_feed_forward_path_are_as_published(
    name: str, full: bool, build
) -> None:
    assert build(last_attn=name).full_last_block is full
    assert build(last_attn=name, last_block='full').full_last_block
    assert not build(last_attn=name, last_block='attn_only').full_last_block


@pytest.mark.parametrize('last_block', ['full', 'attn_only'])
@torch.no_grad()
def test_last_block_paths(last_block: str, build) -> None:
    """The values' projection by hand, with and without the two other paths."""
    backbone = build(
        dict(ls_init_value=0.3),
        last_attn='maskclip',
        last_block=last_block,
        out_indices=(1, 2),
    )
    before, after = backbone(torch.randn(1, 3, 32, 32))
    block = backbone.visual.transformer.resblocks[2]
    tokens = before.movedim(1, -1)
    weight, bias = block.attn.in_proj_weight[64:], block.attn.in_proj_bias[64:]
    values = block.ln_1(tokens) @ weight.T + bias
    expected = 0.3 * block.attn.out_proj(values)
    if last_block == 'full':
        expected = tokens + expected
        expected = expected + 0.3 * block.mlp(block.ln_2(expected))
    torch.testing.assert_close(after.movedim(1, -1), expected)


@torch.no_grad()
def test_sclip_on_one_token_is_its_doubled_value(build) -> None:
    block = build().visual.transformer.resblocks[2]
    token = torch.randn(2, 1, 32)
    sclip = LAST_ATTENTION['sclip']()
    ours = replaced_block(
        block, token, lambda q, k, v: sclip(q, k, v, (1, 1)), full=False
    )
    value = block.ln_1(token) @ block.attn.in_proj_weight[64:].T
    value = value + block.attn.in_proj_bias[64:]
    torch.testing.assert_close(ours, block.attn.out_proj(2 * value))


@pytest.mark.parametrize('name', ['vanilla', 'naclip'])
@torch.no_grad()
def test_large_oblong_image(name: str, build) -> None:
    backbone = build(dict(patch_size=16), last_attn=name, out_global=True)
    dense, token = backbone(torch.randn(1, 3, 336, 512))
    assert dense.shape == (1, 24, 21, 32)
    assert token.shape == (1, 24)
    assert torch.isfinite(dense).all()


@torch.no_grad()
def test_other_sizes_use_resized_positions(build) -> None:
    """A tower that has the resized positions from the start gives the same."""
    backbone = build(pos_interp='bilinear')
    image = torch.randn(1, 3, 48, 64)
    actual = backbone(image)[0]
    stored = backbone.visual.positional_embedding
    native = build(dict(image_size=[48, 64]))
    native.load_state_dict(
        backbone.state_dict()
        | {
            'visual.positional_embedding': resize_positions(
                stored, (6, 8), mode='bilinear'
            )
        }
    )
    torch.testing.assert_close(actual, native(image)[0])


@torch.no_grad()
def test_padding_fills_with_zeros_and_floor_leaves_out(build) -> None:
    image = torch.randn(1, 3, 33, 50)
    padded, floored = build(grid='pad'), build(grid='floor')
    assert padded(image)[0].shape[-2:] == (5, 7)
    filled = F.pad(image, (0, 6, 0, 7))
    torch.testing.assert_close(padded(image), padded(filled))
    assert floored(image)[0].shape[-2:] == (4, 6)
    torch.testing.assert_close(floored(image), padded(image[:, :, :32, :48]))


@torch.no_grad()
def test_image_smaller_than_a_patch(build) -> None:
    tiny = torch.randn(1, 3, 3, 20)
    assert build()(tiny)[0].shape == (1, 24, 1, 3)
    with pytest.raises(ValueError, match='3x20 pixels is smaller than a patch of 8x8'):
        build(grid='floor')(tiny)


@torch.no_grad()
def test_stored_positions_can_be_resized_at_once(build) -> None:
    backbone = build(image_size=(40, 24), pos_interp='bilinear')
    original = build().visual.positional_embedding
    expected = resize_positions(original, (5, 3), mode='bilinear')
    assert torch.equal(backbone.visual.positional_embedding, expected)
    image = torch.randn(1, 3, 40, 24)
    torch.testing.assert_close(backbone(image), build(pos_interp='bilinear')(image))


@torch.no_grad()
def test_class_embedding_can_count_twice(build) -> None:
    image = torch.randn(1, 3, 32, 32)
    twice, doubled = build(cls_embed_twice=True), build()
    doubled.visual.class_embedding.mul_(2)
    torch.testing.assert_close(twice(image), doubled(image))


@torch.no_grad()
def test_projection_and_length_are_options(build) -> None:
    image = torch.randn(2, 3, 32, 32)
    plain = build(out_global=True)
    dense, token = plain(image)
    unprojected = build(project=False)
    tokens = unprojected(image)[0]
    assert unprojected.out_channels == (32,)
    projected = tokens.movedim(1, -1) @ plain.visual.proj
    torch.testing.assert_close(projected.movedim(-1, 1), dense)
    unit_dense, unit_token = build(out_global=True, normalize=True)(image)
    torch.testing.assert_close(unit_dense, F.normalize(dense, dim=1))
    torch.testing.assert_close(unit_token, F.normalize(token, dim=1))


@torch.no_grad()
def test_maps_come_in_the_order_asked_for(build) -> None:
    image = torch.randn(1, 3, 32, 32)
    mixed = build(out_indices=(2, -1, 0))
    assert mixed.out_channels == (32, 24, 32)
    for output, index in zip(mixed(image), (2, -1, 0), strict=True):
        torch.testing.assert_close(output, build(out_indices=(index,))(image)[0])


def test_frozen_tower_stays_in_evaluation_mode(build) -> None:
    backbone = build(dict(patch_dropout=0.5))
    backbone.train()
    assert not any(module.training for module in backbone.visual.modules())
    assert not any(p.requires_grad for p in backbone.parameters())
    backbone(torch.randn(1, 3, 32, 32, requires_grad=True))[0].sum().backward()


def test_unfrozen_tower_trains_every_weight_in_use(build) -> None:
    backbone = build(dict(patch_dropout=0.5), frozen=False, out_global=True)
    backbone.train()
    dense, token = backbone(torch.randn(1, 3, 40, 32))
    assert dense.shape[-2:] == (5, 4)  # no patch is dropped
    (dense.square().sum() + token.sum()).backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_weights_outlive_init_weights_and_keep_clips_names(
    tmp_path: Path, tiny_config, tiny_clip
) -> None:
    state = tiny_clip().state_dict()
    torch.save(state, tmp_path / 'weights.pt')
    backbone = MODELS.build(
        dict(
            type='OpenCLIPViT',
            arch=tiny_config(),
            pretrained=str(tmp_path / 'weights.pt'),
        )
    )
    backbone.init_weights()
    visual = {key: v for key, v in state.items() if key.startswith('visual.')}
    ours = backbone.state_dict()
    assert ours.keys() == visual.keys()
    assert all(torch.equal(ours[key], value) for key, value in visual.items())


def test_two_backbones_of_one_file_share_no_weights(
    tmp_path: Path, tiny_config, tiny_clip
) -> None:
    torch.save(tiny_clip().state_dict(), tmp_path / 'weights.pt')
    first, second = (
        OpenCLIPViT(tiny_config(), tmp_path / 'weights.pt') for _ in range(2)
    )
    with torch.no_grad():
        first.visual.proj.zero_()
    assert second.visual.proj.any()


def test_statistics_are_for_byte_images(build) -> None:
    backbone = build()
    assert backbone.mean == pytest.approx((122.771, 116.746, 104.094), abs=1e-3)
    assert backbone.std == pytest.approx((68.501, 66.632, 70.323), abs=1e-3)


@pytest.mark.parametrize('name', ['vanilla', 'naclip', 'nonly'])
@torch.no_grad()
def test_forward_compiles_without_graph_breaks(name: str, build) -> None:
    backbone = build(
        dict(layers=2), last_attn=name, out_indices=(0, -1), out_global=True
    )
    image = torch.randn(1, 3, 36, 50)
    torch._dynamo.reset()
    compiled = torch.compile(backbone, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(image), backbone(image))


@pytest.mark.parametrize('name', LAST_ATTENTION)
@torch.no_grad()
def test_bfloat16_autocast_stays_close(name: str, build) -> None:
    backbone = build(last_attn=name, out_global=True, normalize=True)
    image = torch.randn(2, 3, 40, 32)
    exact = backbone(image)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = backbone(image)
    for actual, expected in zip(rounded, exact, strict=True):
        assert (actual.float() * expected).sum(dim=1).min() > 0.999


@pytest.mark.parametrize(
    ('arch', 'kind'),
    [
        ('ViT-B-16-SigLIP', 'timm model'),
        ('EVA02-B-16', 'timm model'),
        ('ViTamin-S', 'timm model'),
        ('convnext_base', 'timm model'),
        ('RN50-quickgelu', 'ResNet'),
        ('coca_ViT-B-32', 'attentional pooling'),
    ],
)
def test_other_towers_are_refused_before_anything_is_read(arch: str, kind: str) -> None:
    with pytest.raises(ValueError, match=rf"tower of arch='{arch}' is a.* {kind}"):
        OpenCLIPViT(arch, pretrained='no such file')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(grid='crop'), "grid must be one of 'pad', 'floor', not 'crop'"),
        (dict(last_block='half'), 'last_block must be one of'),
        (dict(pos_interp='nearest'), 'pos_interp must be one of'),
        (dict(out_indices=(3,)), r'out_indices=\(3,\).* 0 to 2'),
        (dict(out_indices=(0, 0)), 'different numbers'),
        (dict(out_indices=()), 'out_indices is empty'),
        (dict(image_size=4), 'image_size=4 is smaller than a patch'),
    ],
)
def test_wrong_options_are_named(options: dict, message: str, build) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_custom_blocks_keep_their_own_attention(build) -> None:
    with pytest.raises(ValueError, match='cannot be replaced'):
        build(dict(qk_norm=True), last_attn='naclip')


def test_oblong_patches_are_refused(build) -> None:
    with pytest.raises(ValueError, match='patches of 8x4'):
        build(dict(patch_size=[8, 4]))
