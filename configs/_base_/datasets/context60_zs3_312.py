# Pascal-Context with 60 classes as ZS3Net's code reads it.
_base_ = ['./context60_512.py', './zs3_pipelines.py']

split = 'context_zs3_2'

crop_size = _base_.zs3_crop
train_pipeline = _base_.zs3_train_pipeline
test_pipeline = _base_.zs3_test_pipeline

train_dataloader = dict(
    _base_.zs3_train_loader,
    dataset=dict(split=split, dataset=dict(pipeline=_base_.zs3_train_pipeline)),
)
test_dataloader = dict(dataset=dict(split=split, pipeline=_base_.zs3_test_pipeline))
val_dataloader = test_dataloader
val_evaluator = _base_.zs3_evaluator
test_evaluator = val_evaluator
