# PASCAL VOC 2012 with the masks of SBD as CaGNet's code reads it.
_base_ = ['./voc12_512.py', './cagnet_pipelines.py']

train_set = dict(_base_.train_set, pipeline=_base_.cagnet_train_pipeline)
aug_set = dict(_base_.aug_set, pipeline=_base_.cagnet_train_pipeline)
crop_size = _base_.cagnet_crop
train_pipeline = _base_.cagnet_train_pipeline
test_pipeline = _base_.cagnet_test_pipeline

train_dataloader = dict(
    _base_.cagnet_train_loader,
    dataset=dict(dataset=dict(datasets=[train_set, aug_set])),
)
test_dataloader = dict(dataset=dict(pipeline=_base_.cagnet_test_pipeline))
val_dataloader = test_dataloader
