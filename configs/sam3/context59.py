# SAM 3 on Pascal-Context, 59 classes, each the union of what its name means.
_base_ = [
    '../_base_/models/sam3.py',
    '../_base_/datasets/context59_512.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
resize = dict(type='Resize', scale=(_base_.side, _base_.side), keep_ratio=False)
test_pipeline = [_base_.test_pipeline[0], resize, *_base_.test_pipeline[2:]]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
# Nothing is trained, so nothing of the training half is used.
train_dataloader = None
