# ZegFormer in small: a ResNet-18 of few channels from scratch, and the tiny CLIP that
# ships with the package, for words and for the second look.
_base_ = ['./zegformer_r50.py']

arch = 'zs3-shapes-tiny'
pretrained = 'shapes'
norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    class_embeddings=dict(
        source=dict(arch=arch, pretrained=pretrained), templates='single'
    ),
    backbone=dict(
        depth=18,
        base_channels=16,
        stem_channels=16,
        # Scenes are small: the coarsest map has a stride of 16.
        strides=(1, 2, 2, 1),
        norm_cfg=norm_cfg,
        init_cfg=None,
    ),
    decode_head=dict(
        in_channels=[16, 32, 64, 128],
        channels=64,
        num_groups=8,
        num_queries=20,
        num_layers=3,
        num_heads=4,
        feedforward_channels=128,
        dropout=0.0,
        region_classifier=dict(arch=arch, pretrained=pretrained, templates='single'),
    ),
)
