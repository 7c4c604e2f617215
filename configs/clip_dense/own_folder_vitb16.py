# Dense CLIP with OpenAI's ViT-B/16 on a folder of your own photographs: copy it and
# change the folder's name.
_base_ = [
    '../_base_/models/clip_vitb16.py',
    '../_base_/datasets/folder_512.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
resize = dict(_base_.test_pipeline[1], scale=_base_.short_side)
test_pipeline = [_base_.test_pipeline[0], resize, *_base_.test_pipeline[2:]]
tta_pipeline = [
    _base_.tta_pipeline[0],
    dict(
        _base_.tta_pipeline[1],
        transforms=[
            [
                dict(resize, scale=round(_base_.short_side * ratio))
                for ratio in (1.0, 1.25, 1.5)
            ],
            *_base_.tta_pipeline[1].transforms[1:],
        ],
    ),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
# Nothing is trained, so nothing of the training half is used.
train_dataloader = None
train_pipeline = None
