# The tiny CLIP that ships with the package, read as a dense text-queried segmentor.
arch = 'zs3-shapes-tiny'
pretrained = 'shapes'

model = dict(
    type='ZeroShotEncoderDecoder',
    setting='inductive',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # CLIP's own statistics, on 0..255.
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=8,
    ),
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='clip_text', arch=arch, pretrained=pretrained),
        templates='single',
    ),
    backbone=dict(
        type='OpenCLIPViT',
        arch=arch,
        pretrained=pretrained,
        # Of all strategies this one scored best on val scenes.
        last_attn='sclip',
        last_block='full',
    ),
    decode_head=dict(type='DenseTextHead'),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
