# PASCAL VOC 2012, as FC-CLIP's code reads images.
_base_ = ['./voc12_512.py', './fcclip_pipelines.py']

crop_size = _base_.fcclip_crop
train_pipeline = _base_.fcclip_train
test_pipeline = _base_.fcclip_test
train_set = dict(pipeline=train_pipeline)
aug_set = dict(pipeline=train_pipeline)

train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        dataset=dict(
            datasets=[
                dict(_base_.train_set, pipeline=train_pipeline),
                dict(_base_.aug_set, pipeline=train_pipeline),
            ]
        )
    ),
)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
