# LSeg on all 150 classes of ADE20K, as published: the model of the demo. Nothing is
# unseen. 4 images per process; --tta is the published multi-scale test.
_base_ = [
    '../_base_/models/lseg_vitl16.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/lseg_240e.py',
]

base_size = 520
crop_size = (480, 480)

model = dict(
    split=_base_.split,
    setting=_base_.setting,
    data_preprocessor=dict(size=crop_size, size_divisor=None),
    # The words of the code, some of which are cut off: 'chest' of drawers.
    class_embeddings=dict(texts='lseg_ade20k'),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(320, 320)),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    # The long side.
    dict(
        type='RandomResize',
        scale=(base_size, base_size),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
        backend='pillow',
    ),
    dict(type='RandomCrop', crop_size=crop_size),
    # Before the normalisation: black.
    dict(type='Pad', size=crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeShortestEdge', scale=crop_size[0], max_size=_base_.uncapped),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# One view: the model of the augmented test resizes and flips for itself.
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[[dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]],
    ),
]
# summed='score' is the sound way to add up scales.
tta_model = dict(
    type='MultiScaleWindowTTAModel',
    base_size=base_size,
    crop_size=crop_size[0],
    stride=320,
    scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
    flip=True,
    summed='logit',
)
train_dataloader = dict(
    drop_last=True,
    sampler=dict(type='EpochDrawSampler'),
    dataset=dict(dataset=dict(pipeline=train_pipeline)),
)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
# Classes without a pixel count as 0, as in the official code.
val_evaluator = dict(absent='zero')
test_evaluator = val_evaluator
