# COCO-20i as SAZS's code reads it, see pascal5i_sazs.py.
_base_ = ['./coco20i.py', './sazs_pipelines.py']

train_pipeline = [
    *_base_.sazs_load,
    *_base_.sazs_changes,
    # The last class makes no contours.
    dict(_base_.edges, unlisted=(79,)),
    dict(type='PackSegInputs'),
]
test_pipeline = _base_.sazs_test_pipeline

train_dataloader = dict(
    batch_size=6,
    dataset=dict(
        unseen_policy='ignore',
        keep_classes=True,
        dataset=dict(pipeline=train_pipeline),
    ),
)
val_dataloader = dict(dataset=dict(dataset=dict(pipeline=test_pipeline)))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
