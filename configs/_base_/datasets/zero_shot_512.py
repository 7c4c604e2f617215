# What the 512-pixel data sets share: ZegCLIP's pipeline and loader sizes. A config that
# trains gives its data_preprocessor size=_base_.crop_size, which pads the crops.
# Batches of 4 on 4 GPUs in the paper.
setting = 'inductive'
crop_size = (512, 512)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(2048, 512),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
# The short side becomes 512, however long the other one gets. Resize with
# scale=(2048, 512) would shrink a panorama further.
uncapped = 2**20
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeShortestEdge', scale=crop_size[0], max_size=uncapped),
    # After the resize: scores are compared at the size of the label map.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='ResizeShortestEdge', scale=side, max_size=uncapped)
                for side in (512, 640, 768)
            ],
            [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DrawSampler'),
    dataset=dict(type='ZeroShotDataset', phase='train', setting=setting),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    # Here mmseg's inferencer and test-time augmentation look for it, too.
    dataset=dict(type='ZeroShotDataset', phase='test', pipeline=test_pipeline),
)
val_dataloader = test_dataloader
val_evaluator = dict(type='ZeroShotIoUMetric')
test_evaluator = val_evaluator
