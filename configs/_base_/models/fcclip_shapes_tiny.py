# FC-CLIP's decoders in small on the frozen tiny CLIP that ships with the package. It is
# FC-CLIP-style and not FC-CLIP: the tiny CLIP is a transformer, whose four maps all
# have stride 8, and its last one, in the space of the texts, is pooled as it is.
_base_ = ['./fcclip_convnext_l.py']

arch = 'zs3-shapes-tiny'
pretrained = 'shapes'
width = 128

model = dict(
    class_embeddings=dict(
        source=dict(arch=arch, pretrained=pretrained), templates='single'
    ),
    backbone=dict(
        type='OpenCLIPViT',
        arch=arch,
        pretrained=pretrained,
        # The last one is what the second look reads.
        out_indices=(1, 3, 4, 5, -1),
        last_attn='maskclip',
    ),
    decode_head=dict(
        in_channels=[width] * 4,
        channels=64,
        num_groups=8,
        num_queries=20,
        num_layers=3,
        num_heads=4,
        feedforward_channels=128,
        pixel_decoder_cfg=dict(num_layers=2, num_heads=4, feedforward_channels=128),
        loss_masks=dict(num_points=784),
        region_classifier=dict(_delete_=True, type='MaskPoolingClassifier'),
    ),
)
