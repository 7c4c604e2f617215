"""What of ZS3Net's decoder its scores in eval mode do not show."""

from __future__ import annotations

import torch

from zs3_mmseg.models.decode_heads import ZS3DeepLabHead


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
