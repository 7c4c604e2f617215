"""ViTs of timm as dense backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from zs3_mmseg.models.backbones import TimmViT
from zs3_mmseg.models.towers.positions import resize_positions
from zs3_mmseg.utils.checkpoint import CheckpointError

MODEL = 'vit_tiny_patch16_224'
SIZES: dict[str, Any] = dict(img_size=48, embed_dim=16, depth=3, num_heads=2)


def stock(**options: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(MODEL, num_classes=3, **{**SIZES, **options}).eval()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / 'vit.pth'
    torch.save(stock().state_dict(), path)
    return path


def test_maps_and_class_tokens_are_those_of_timm(weights: Path) -> None:
    ours = TimmViT(MODEL, pretrained=weights, out_indices=(0, 2), **SIZES).eval()
    image = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        found = ours(image)
        expected = stock().forward_intermediates(
            image,
            indices=[0, 2],
            return_prefix_tokens=True,
            norm=False,
            intermediates_only=True,
        )
    for index, (maps, classes) in enumerate(expected):
        torch.testing.assert_close(found.maps[index], maps)
        torch.testing.assert_close(found.cls_tokens[:, index], classes[:, 0])
    assert ours.out_channels == (16, 16)


@pytest.mark.parametrize('size', [(16, 144), (144, 16), (32, 80), (20, 33)])
def test_positions_follow_the_grid_not_the_number_of_patches(
    weights: Path, size: tuple[int, int]
) -> None:
    """1 x 9 patches are as many as the 3 x 3 of the stored grid."""
    ours = TimmViT(MODEL, pretrained=weights, out_indices=(0,), **SIZES).eval()
    grid = tuple(-(-side // 16) for side in size)
    whole = torch.zeros(1, 3, *(16 * side for side in grid))
    whole[..., : size[0], : size[1]] = 1
    vit = stock(img_size=tuple(whole.shape[2:]))
    own = resize_positions(stock().pos_embed[0].detach(), grid, (3, 3), 'bilinear')
    state = stock().state_dict() | {'pos_embed': own[None]}
    vit.load_state_dict(state)
    with torch.no_grad():
        expected = vit.forward_intermediates(
            whole, indices=[0], norm=False, intermediates_only=True
        )[0]
        found = ours(torch.ones(1, 3, *size)).maps[0]
    torch.testing.assert_close(found, expected)


def test_everything_learns(weights: Path) -> None:
    """Neither the last norm nor blocks behind the last map are there."""
    ours = TimmViT(MODEL, pretrained=weights, out_indices=(1,), **SIZES)
    output = ours(torch.randn(1, 3, 32, 32))
    (output.maps[0].sum() + output.cls_tokens.sum()).backward()
    assert [n for n, p in ours.named_parameters() if p.grad is None] == []
    before = ours.vit.cls_token.clone()
    ours.init_weights()
    assert torch.equal(ours.vit.cls_token, before)


@pytest.mark.parametrize(
    ('model', 'options', 'message'),
    [
        ('vit_tiny_patch16_225', {}, 'vit_tiny_patch16_225'),
        ('resnet18', {}, 'ResNet is no plain ViT'),
        ('deit_tiny_distilled_patch16_224', {}, 'is no plain ViT'),
        (MODEL, dict(out_indices=(3, 12)), 'must be different blocks from 0 to 11'),
        (MODEL, dict(out_indices=()), 'out_indices is empty'),
        (MODEL, dict(pos_interp='cubic'), 'pos_interp must be one of'),
        (MODEL, dict(widht=3), 'widht'),
    ],
)
def test_other_models_are_refused(
    model: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        TimmViT(model, **{'out_indices': (0,), **options})
    assert '\n' not in str(raised.value)


def test_weights_of_another_size_are_refused(weights: Path) -> None:
    with pytest.raises(CheckpointError, match='does not fit'):
        TimmViT(
            MODEL, pretrained=weights, out_indices=(0,), **{**SIZES, 'embed_dim': 8}
        )
    larger = TimmViT(
        MODEL, pretrained=weights, out_indices=(0,), **{**SIZES, 'img_size': 64}
    )
    assert larger.vit.pos_embed.shape == (1, 17, 16)
