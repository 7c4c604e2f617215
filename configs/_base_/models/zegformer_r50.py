# ZegFormer with a ResNet-50 of ImageNet, all of which learns but its norms, and
# OpenAI's ViT-B/16, which looks through the masks in the test.
#
# The weights of CLIP are open_clip's tag 'openai', downloaded on first use. Without a
# network, fetch ViT-B-16.pt and give its path as
# model.decode_head.region_classifier.pretrained and
# model.class_embeddings.source.pretrained.
arch = 'ViT-B-16-quickgelu'
pretrained = 'openai'

model = dict(
    type='ZeroShotEncoderDecoder',
    setting='inductive',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=32,
        test_cfg=dict(size_divisor=32),
    ),
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='clip_text', arch=arch, pretrained=pretrained),
        templates='zegformer',
        reduce_synonyms=True,
    ),
    backbone=dict(
        type='ResNet',
        depth=50,
        style='pytorch',
        norm_cfg=dict(type='FrozenBN'),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    decode_head=dict(
        type='ZegFormerHead',
        in_channels=[256, 512, 1024, 2048],
        region_classifier=dict(
            type='CropClassifier',
            arch=arch,
            pretrained=pretrained,
            templates='zegformer_crops',
        ),
    ),
    # The published constant.
    calibrators=[dict(type='SeenShift', shift=0.1, space='score')],
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
