# PASCAL VOC 2012 as ZegFormer's code reads it.
_base_ = ['./voc12_512.py', './zegformer_pipelines.py']

crop_size = _base_.zegformer_crop
train_pipeline = [
    *_base_.zegformer_load,
    _base_.zegformer_resize,
    dict(type='RandomCrop', crop_size=crop_size),
    *_base_.zegformer_colours,
    dict(type='Pad', size=crop_size, pad_val=_base_.zegformer_fill),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='ResizeShortestEdge',
        scale=crop_size[0],
        max_size=_base_.zegformer_resize.max_size,
    ),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_set = dict(pipeline=train_pipeline)
aug_set = dict(pipeline=train_pipeline)

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            datasets=[
                dict(_base_.train_set, pipeline=train_pipeline),
                dict(_base_.aug_set, pipeline=train_pipeline),
            ]
        )
    )
)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
