"""CLIP models small enough to be built for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from zs3_mmseg.models.towers import load_clip, release_towers


def _tiny_config(**vision: Any) -> dict[str, Any]:
    quick_gelu = vision.pop('quick_gelu', False)
    sizes = dict(image_size=32, patch_size=8, width=32, head_width=8, layers=3)
    return dict(
        embed_dim=24,
        quick_gelu=quick_gelu,
        vision_cfg=sizes | vision,
        text_cfg=dict(context_length=12, vocab_size=49408, width=16, heads=2, layers=1),
    )


@pytest.fixture(scope='session')
def tiny_config() -> Callable[..., dict[str, Any]]:
    """Make an open_clip model config; keywords go into ``vision_cfg``."""
    return _tiny_config


@pytest.fixture
def tiny_clip() -> Callable[..., torch.nn.Module]:
    """Build an open_clip model with random weights."""

    def build(**vision: Any) -> torch.nn.Module:
        torch.manual_seed(0)
        return load_clip(_tiny_config(**vision)).model

    return build


@pytest.fixture(autouse=True)
def _no_kept_towers() -> Iterator[None]:
    """Tests that write a weights file anew must not get the last one."""
    yield
    release_towers()


@pytest.fixture(scope='session')
def sam_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Write SAM or SAM 2 with few, random weights as ``save_pretrained`` does."""
    import transformers as hf

    made: dict[str, str] = {}
    side, decoder = 64, dict(num_hidden_layers=1, num_attention_heads=2, mlp_dim=16)
    decoder |= dict(iou_head_hidden_dim=8, attention_downsample_rate=1)

    def sam() -> tuple[Any, Any]:
        vision = dict(hidden_size=16, output_channels=8, num_hidden_layers=1)
        vision |= dict(num_attention_heads=2, image_size=side, patch_size=8)
        vision |= dict(mlp_dim=32, window_size=4, global_attn_indexes=[0])
        prompts = dict(hidden_size=8, image_size=side, patch_size=8)
        config = hf.SamConfig(
            vision_config=dict(vision, num_pos_feats=4),
            prompt_encoder_config=dict(prompts, mask_input_channels=4),
            mask_decoder_config=dict(decoder, hidden_size=8),
        )
        processor = hf.SamImageProcessor(
            size=dict(longest_edge=side), pad_size=dict(height=side, width=side)
        )
        return hf.SamModel(config), processor

    def sam2() -> tuple[Any, Any]:
        hiera = dict(model_type='sam2_hiera_det_model', image_size=[side, side])
        hiera |= dict(hidden_size=8, blocks_per_stage=[1, 1, 2, 1])
        hiera |= dict(embed_dim_per_stage=[8, 16, 32, 64], global_attention_blocks=[3])
        hiera |= dict(window_size_per_stage=[4, 2, 4, 2])
        hiera |= dict(window_positional_embedding_background_size=[2, 2])
        vision = dict(backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=32)
        vision |= dict(backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]])
        prompts = dict(hidden_size=32, image_size=side, patch_size=16)
        config = hf.Sam2Config(
            vision_config=dict(vision, backbone_config=hiera),
            prompt_encoder_config=dict(prompts, mask_input_channels=4),
            mask_decoder_config=dict(decoder, hidden_size=32),
        )
        processor = hf.Sam2ImageProcessor(size=dict(height=side, width=side))
        return hf.Sam2Model(config), processor

    def write(kind: str) -> str:
        if kind not in made:
            folder = str(tmp_path_factory.mktemp(kind))
            torch.manual_seed(0)
            model, processor = {'sam': sam, 'sam2': sam2}[kind]()
            with torch.no_grad():  # so that masks are more and less sure
                for weights in model.mask_decoder.iou_prediction_head.parameters():
                    weights.mul_(8)
                for last in model.mask_decoder.output_hypernetworks_mlps:
                    last.proj_out.weight.mul_(dict(sam=6e6, sam2=6e4)[kind])
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            made[kind] = folder
        return made[kind]

    return write
