# LSeg's ResNet-101: a network of ImageNet, not CLIP's, whose maps are read as they are
# and whose norms all learn.
_base_ = ['./lseg_vitl16.py']

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=101,
        style='pytorch',
        norm_cfg=dict(type='BN'),
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'),
    ),
    decode_head=dict(in_channels=[256, 512, 1024, 2048], post_process_channels=None),
)
