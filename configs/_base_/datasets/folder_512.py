# A folder of your own at 512 pixels, for photographs. All sizes follow from crop_size;
# those of a model, too, where its config takes them from here.
_base_ = ['./folder.py']

crop_size = (512, 512)
# The short side becomes as long, however long the other one gets.
uncapped = 2**20

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(
        type='RandomResize',
        scale=(uncapped, crop_size[0]),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='ResizeShortestEdge', scale=crop_size[0], max_size=uncapped),
    *_base_.test_pipeline[2:],
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(
                    type='ResizeShortestEdge',
                    scale=round(crop_size[0] * ratio),
                    max_size=uncapped,
                )
                for ratio in (1.0, 1.25, 1.5)
            ],
            *_base_.tta_pipeline[1].transforms[1:],
        ],
    ),
]

train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
