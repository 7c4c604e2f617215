# COCO-20i as LSeg's two-word code reads it. Void does not exist there.
_base_ = ['./coco20i.py', './lseg_fold_pipelines.py']

test_pipeline = _base_.lseg_test_pipeline
train_dataloader = dict(
    batch_size=_base_.lseg_batch_size,
    dataset=dict(
        unseen_policy='ignore',
        min_pixels=_base_.lseg_min_pixels,
        dataset=dict(pipeline=_base_.lseg_train_pipeline),
    ),
)
val_dataloader = dict(
    dataset=dict(
        min_pixels=_base_.lseg_min_pixels,
        dataset=dict(pipeline=test_pipeline),
    )
)
test_dataloader = dict(
    dataset=dict(min_pixels=_base_.lseg_min_pixels, pipeline=test_pipeline)
)
