# Shapes, the procedural data set: made on first use, nothing to download.
split = 'shapes_a'
data_root = 'data/shapes'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion', brightness_delta=16, hue_delta=9),
    dict(type='PackSegInputs'),
]
# Scenes are 112 x 112; other images are brought to this short side.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 112), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(2048, side), keep_ratio=True)
                for side in (96, 112, 128)
            ],
            [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
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
        dataset=dict(
            type='ShapesDataset',
            data_root=data_root,
            subset='train',
        ),
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ZeroShotDataset',
        phase='test',
        split=split,
        dataset=dict(
            type='ShapesDataset',
            data_root=data_root,
            subset='test',
        ),
        pipeline=test_pipeline,
    ),
)
val_scenes = dict(test_dataloader['dataset']['dataset'], subset='val')
val_dataloader = dict(
    test_dataloader, dataset=dict(test_dataloader['dataset'], dataset=val_scenes)
)
val_evaluator = dict(type='ZeroShotIoUMetric', boundary_ratio=0.02)
test_evaluator = val_evaluator
