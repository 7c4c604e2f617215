# Pascal-Context's 59 classes, as FC-CLIP's code reads images.
_base_ = ['./context59_512.py', './fcclip_pipelines.py']

crop_size = _base_.fcclip_crop
train_pipeline = _base_.fcclip_train
test_pipeline = _base_.fcclip_test

train_dataloader = dict(
    batch_size=2, dataset=dict(dataset=dict(pipeline=train_pipeline))
)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
