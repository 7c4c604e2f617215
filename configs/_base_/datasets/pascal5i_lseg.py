# PASCAL-5i as LSeg's two-word code reads it.
_base_ = ['./pascal5i.py', './lseg_fold_pipelines.py']

test_pipeline = _base_.lseg_test_pipeline
lseg_train_sets = [
    dict(part, pipeline=_base_.lseg_train_pipeline) for part in _base_.train_parts
]
lseg_val_sets = [dict(part, pipeline=test_pipeline) for part in _base_.train_parts]
train_dataloader = dict(
    batch_size=_base_.lseg_batch_size,
    dataset=dict(
        unseen_policy='ignore',
        min_pixels=_base_.lseg_min_pixels,
        dataset=dict(datasets=lseg_train_sets),
    ),
)
val_dataloader = dict(
    dataset=dict(
        min_pixels=_base_.lseg_min_pixels, dataset=dict(datasets=lseg_val_sets)
    )
)
test_dataloader = dict(
    dataset=dict(min_pixels=_base_.lseg_min_pixels, pipeline=test_pipeline)
)
