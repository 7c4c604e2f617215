# The segmentor of ZS3Net: DeepLabv3+ with dense convolutions on ResNet-101. Not made of
# mmseg's resnet101_v1c and DepthwiseSeparableASPPHead, which cannot hold the official
# weights.
norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='ResNet',
        depth=101,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        # 2 x (1, 2, 4): mmseg takes the dilations themselves.
        multi_grid=(2, 4, 8),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
    ),
    decode_head=dict(
        type='ZS3DeepLabHead',
        in_channels=2048,
        in_index=3,
        norm_cfg=norm_cfg,
        # Drawn as in the official code, the classifier included.
        init_cfg=dict(type='Kaiming', layer='Conv2d', mode='fan_in', a=0),
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
