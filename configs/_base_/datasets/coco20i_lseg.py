# COCO-20i as LSeg's two-word code reads it. Void does not exist there.
_base_ = ['./coco20i.py', './lseg_fold_pipelines.py']

train_dataloader = dict(
    _base_.lseg_train_loader,
    dataset=dict(dataset=dict(pipeline=_base_.lseg_train_pipeline)),
)
val_dataloader = dict(dataset=dict(dataset=dict(pipeline=_base_.lseg_test_pipeline)))
test_dataloader = dict(dataset=dict(dataset=dict(pipeline=_base_.lseg_test_pipeline)))
