# PASCAL-5i as SAZS's code reads it: images with unseen objects stay in training, where
# these are "others" like anything else, and their contours are targets.
_base_ = ['./pascal5i.py', './sazs_pipelines.py']

train_pipeline = [
    *_base_.sazs_load,
    *_base_.sazs_changes,
    # The last class makes no contours.
    dict(_base_.edges, unlisted=(19,)),
    dict(type='PackSegInputs'),
]
test_pipeline = _base_.sazs_test_pipeline

train_dataloader = dict(
    batch_size=6,
    dataset=dict(
        unseen_policy='ignore',
        keep_classes=True,
        dataset=dict(
            datasets=[
                dict(**part, pipeline=train_pipeline) for part in _base_.train_parts
            ]
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        dataset=dict(
            datasets=[
                dict(**part, pipeline=test_pipeline) for part in _base_.train_parts
            ]
        )
    )
)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
