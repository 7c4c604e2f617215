# FC-CLIP with the ConvNeXt-L of LAION's CLIP, the network of the paper's main results.
# Nothing of CLIP learns.
#
# The weights of CLIP are open_clip's tag, downloaded on first use. Without a network,
# fetch the file and give its path as pretrained in all three places.
arch = 'convnext_large_d_320'
pretrained = 'laion2b_s29b_b131k_ft_soup'

model = dict(
    type='ZeroShotEncoderDecoder',
    setting='inductive',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=32,
        test_cfg=dict(size_divisor=32),
    ),
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='clip_text', arch=arch, pretrained=pretrained),
        templates='vild',
    ),
    backbone=dict(type='OpenCLIPConvNeXt', arch=arch, pretrained=pretrained),
    decode_head=dict(
        type='FCCLIPHead',
        in_channels=[192, 384, 768, 1536],
        region_classifier=dict(
            type='ConvCLIPClassifier', arch=arch, pretrained=pretrained
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
