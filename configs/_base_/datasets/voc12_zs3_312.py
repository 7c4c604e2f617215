# PASCAL VOC 2012 with the masks of SBD as ZS3Net's code reads it.
_base_ = ['./voc12_background_512.py', './zs3_pipelines.py']

split = 'voc12_zs3_2'

zs3_train_sets = [
    dict(train_set, pipeline=_base_.zs3_train_pipeline)
    for train_set in (_base_.train_set, _base_.aug_set)
]
crop_size = _base_.zs3_crop
train_pipeline = _base_.zs3_train_pipeline
test_pipeline = _base_.zs3_test_pipeline

train_dataloader = dict(
    _base_.zs3_train_loader,
    dataset=dict(split=split, dataset=dict(datasets=zs3_train_sets)),
)
test_dataloader = dict(dataset=dict(split=split, pipeline=_base_.zs3_test_pipeline))
val_dataloader = test_dataloader
val_evaluator = _base_.zs3_evaluator
test_evaluator = val_evaluator
