# A small head on frozen ImageNet features: a stock mmseg model on a backbone of timm,
# no CLIP anywhere. mmpretrain's backbones can stand in its place.
#
# The weights are timm's, which are downloaded on first use. Without a network, name the
# file in model.backbone.backbone.pretrained_cfg_overlay.file.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # Those of this backbone; timm.get_pretrained_cfg(NAME) tells others.
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        # The deepest map has a stride of 32.
        test_cfg=dict(size_divisor=32),
        size_divisor=32,
    ),
    backbone=dict(
        type='FrozenBackbone',
        backbone=dict(
            type='TIMMBackbone',
            model_name='tf_efficientnet_lite0',
            features_only=True,
            pretrained=True,
            # Maps at strides of 8, 16 and 32.
            out_indices=(2, 3, 4),
        ),
    ),
    decode_head=dict(
        type='FCNHead',
        in_index=(0, 1, 2),
        input_transform='resize_concat',
        in_channels=(40, 112, 320),
        # Features of one scale, none below zero, are easier to generate than the
        # backbone's own: the classifier stands on these.
        channels=128,
        num_convs=1,
        kernel_size=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        concat_input=False,
        dropout_ratio=0,
        num_classes=20,
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
