from __future__ import annotations

import pytest
import torch

from zs3_mmseg.models.backbones import OpenCLIPViT
from zs3_mmseg.models.towers import resolve_architecture
from zs3_mmseg.models.towers.architectures import build_model


def with_stem(tiny_config, patch: int, channels: list[int]) -> dict:
    config = tiny_config()
    config['vision_cfg'].update(patch_size=patch, image_size=4 * patch)
    config['conv_stem'] = channels
    return config


def test_backbone_equals_open_clip_with_the_same_stem(tiny_config) -> None:
    config = with_stem(tiny_config, 8, [4, 6])
    torch.manual_seed(0)
    backbone = OpenCLIPViT(config, out_global=True, normalize=True).eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        *_, token = backbone(image)
        expected = torch.nn.functional.normalize(backbone.visual(image), dim=-1)
    assert torch.allclose(token, expected, atol=1e-6)


def test_no_image_depends_on_its_batch_mates(tiny_config) -> None:
    model = build_model(resolve_architecture(with_stem(tiny_config, 4, [5])))
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        together = model.visual(images)
        alone = torch.cat([model.visual(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-6)


def test_a_stride_other_than_the_patch_is_an_error(tiny_config) -> None:
    config = with_stem(tiny_config, 8, [4])
    with pytest.raises(ValueError, match=r'patches of 4 x 4 pixels; .* is 8 x 8'):
        build_model(resolve_architecture(config))


def test_a_tower_without_patch_convolution_is_an_error(tiny_config) -> None:
    config = tiny_config()
    config['vision_cfg'] = dict(timm_model_name='vit_tiny_patch16_224', image_size=224)
    config['conv_stem'] = [4]
    with pytest.raises(ValueError, match='TimmModel'):
        build_model(resolve_architecture(config))
