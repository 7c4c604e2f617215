# A folder of your own: images, masks, classes.txt and unseen.txt. What belongs where
# is written in FolderSegDataset and in docs/user_guides/own_data.md.
data_root = 'data/own'
split = dict(folder=data_root)

# The shipped CLIP was made for 112 pixels; all sizes of this file follow from this one.
crop_size = (112, 112)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadFolderMasks'),
    dict(
        type='RandomResize',
        scale=(2048, crop_size[0]),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, crop_size[0]), keep_ratio=True),
    dict(type='LoadFolderMasks'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(
                    type='Resize',
                    scale=(2048, round(crop_size[0] * ratio)),
                    keep_ratio=True,
                )
                for ratio in (0.875, 1.0, 1.125)
            ],
            [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)],
            [dict(type='LoadFolderMasks')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DrawSampler'),
    dataset=dict(
        type='ZeroShotDataset',
        phase='train',
        split=split,
        setting='inductive',
        dataset=dict(type='FolderSegDataset', data_root=data_root, subset='train'),
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ZeroShotDataset',
        phase='test',
        split=split,
        dataset=dict(type='FolderSegDataset', data_root=data_root, subset='val'),
        pipeline=test_pipeline,
    ),
)
val_dataloader = test_dataloader
val_evaluator = dict(type='ZeroShotIoUMetric')
test_evaluator = val_evaluator
