# COCO-Stuff 164k as ZegFormer's code reads it: crops of 640 pixels, from half to one
# and a half times as large.
_base_ = ['./cocostuff164k_512.py', './zegformer_pipelines.py']

crop_size = (640, 640)
longest = 4 * crop_size[0]
train_pipeline = [
    *_base_.zegformer_load,
    dict(
        _base_.zegformer_resize,
        scales=[int(crop_size[0] * tenths / 10) for tenths in range(5, 16)],
        max_size=longest,
    ),
    dict(type='RandomCrop', crop_size=crop_size),
    *_base_.zegformer_colours,
    dict(type='Pad', size=crop_size, pad_val=_base_.zegformer_fill),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeShortestEdge', scale=crop_size[0], max_size=longest),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
