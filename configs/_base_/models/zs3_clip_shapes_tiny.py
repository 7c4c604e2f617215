# A linear classifier on the frozen tiny CLIP: a stock mmseg model on our backbone.
_base_ = ['./clip_shapes_tiny.py']

model = dict(
    _delete_=True,
    type='EncoderDecoder',
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=_base_.model.backbone,
    decode_head=dict(
        type='FCNHead',
        # No convolution but the classifier.
        in_channels=128,
        channels=128,
        num_convs=0,
        concat_input=False,
        in_index=0,
        dropout_ratio=0,
        num_classes=20,
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
