"""The image encoders of SAZS."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zs3_mmseg.models.backbones import PyramidDRN, ReadoutViT

VIT: dict[str, Any] = dict(
    model='vit_tiny_patch16_224',
    img_size=32,
    patch_size=8,
    embed_dim=12,
    depth=3,
    num_heads=2,
    last_block=1,
    out_channels=5,
)
DRN: dict[str, Any] = dict(
    layers=(1,) * 8, channels=(2, 2, 4, 2, 2, 2, 4, 6), dropout_ratio=0.0
)


@pytest.mark.parametrize(
    ('size', 'grid'), [((32, 48), (8, 12)), ((33, 41), (10, 12)), ((5, 9), (2, 4))]
)
def test_maps_of_any_size(size: tuple[int, int], grid: tuple[int, int]) -> None:
    vit = ReadoutViT(**VIT).eval()
    (maps,) = vit(torch.randn(2, 3, *size))
    assert maps.shape == (2, 5, *grid)
    assert vit.out_channels == (5,)


def test_images_are_filled_up_with_zeros() -> None:
    vit = ReadoutViT(**VIT).eval()
    image = torch.randn(1, 3, 30, 31)
    whole = torch.nn.functional.pad(image, (0, 1, 0, 2))
    assert torch.equal(vit(image)[0], vit(whole)[0])


@pytest.mark.parametrize('make', [lambda: ReadoutViT(**VIT), lambda: PyramidDRN(**DRN)])
def test_images_do_not_know_each_other(make: Any) -> None:
    torch.manual_seed(0)
    network = make().eval()
    images = torch.randn(2, 3, 32, 40)
    (both,), (alone,) = network(images), network(images[1:])
    assert torch.allclose(both[1:], alone, atol=1e-5)


def test_all_that_is_built_learns() -> None:
    """Parameters without gradient would stop distributed training."""
    for network in (ReadoutViT(**VIT), PyramidDRN(**DRN)):
        network(torch.randn(2, 3, 64, 64))[0].square().sum().backward()
        idle = [n for n, p in network.named_parameters() if p.grad is None]
        assert idle == []


def test_weights_of_a_file(tmp_path: Any) -> None:
    whole = ReadoutViT(**{**VIT, 'last_block': 2})
    path = tmp_path / 'vit.pth'
    before = {key: value.clone() for key, value in whole.state_dict().items()}
    whole.init_weights()
    assert all(torch.equal(value, before[k]) for k, value in whole.state_dict().items())
    torch.save(whole.vit.state_dict(), path)
    found = ReadoutViT(**VIT, pretrained=path).vit.state_dict()
    assert all(
        torch.equal(value, whole.vit.state_dict()[k]) for k, value in found.items()
    )
    state = {k: v for k, v in whole.vit.state_dict().items() if 'blocks.1' not in k}
    torch.save(state, path)
    with pytest.raises(ValueError, match='lacks 12 weights of the ViT'):
        ReadoutViT(**VIT, pretrained=path)


def test_trunk_convolutions_are_drawn_by_their_fan_out() -> None:
    torch.manual_seed(0)
    network = PyramidDRN(channels=(16, 32, 8, 8, 8, 8, 16, 64), layers=(1,) * 8)
    network.init_weights()
    weight = network.stages[8][0].conv.weight.detach()  # 3x3, 64 channels
    assert float(weight.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: ReadoutViT(**{**VIT, 'last_block': 3}), 'none of the 3 blocks'),
        (lambda: ReadoutViT('resnet18'), 'ResNet is no plain ViT'),
        (lambda: ReadoutViT(**VIT, widht=3), 'widht'),
        (lambda: PyramidDRN(layers=(1, 1)), 'each of 8 stages'),
        (lambda: PyramidDRN(**DRN)(torch.zeros(1, 3, 7, 20)), '20 x 7 pixels'),
    ],
)
def test_what_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
