"""What of ZS3Net's decoder its scores in eval mode do not show."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from mmengine.config import Config

from zs3_mmseg.models.decode_heads import ZS3DeepLabHead

CONFIGS = Path(__file__).resolve().parents[3] / 'configs'


def build(**options: float) -> ZS3DeepLabHead:
    return ZS3DeepLabHead(
        8,
        6,
        num_classes=3,
        in_index=1,
        c1_in_channels=4,
        c1_channels=2,
        norm_cfg=dict(type='BN'),
        **options,
    )


def test_dropout_takes_single_values_from_what_enters_the_classifier() -> None:
    torch.manual_seed(0)
    head = build(inner_dropout=0.0, dropout_ratio=0.5)
    seen: list[torch.Tensor] = []
    head.conv_seg.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maps = torch.rand(2, 4, 16, 16), torch.rand(2, 8, 4, 4)
    head.eval()(maps)
    head.train()(maps)
    head.dropout = None
    head(maps)
    dropped, whole = seen[1], seen[2]
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])
    shares = [
        channel[whole[0, i] > 0].float().mean() for i, channel in enumerate(kept[0])
    ]
    assert all(0.3 < share < 0.7 for share in shares if not share.isnan())
    assert (whole >= 0).all()


def test_all_convolutions_start_as_in_the_official_code() -> None:
    """Normally distributed with a variance of 2 / inputs (Kaiming, fan in)."""
    torch.manual_seed(0)
    published = Config.fromfile(CONFIGS / '_base_/models/zs3_deeplabv3plus_r101.py')
    head = ZS3DeepLabHead(
        128,
        64,
        num_classes=60,
        in_index=1,
        c1_in_channels=32,
        norm_cfg=dict(type='BN'),
        init_cfg=published.model.decode_head.init_cfg,
    )
    head.init_weights()
    for name, module in head.named_modules():
        if isinstance(module, nn.Conv2d):
            inputs = module.weight[0].numel()
            spread = module.weight.std().item() / math.sqrt(2 / inputs)
            assert 0.93 < spread < 1.07, name
