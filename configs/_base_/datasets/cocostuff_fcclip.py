# COCO-Stuff 164k as FC-CLIP's code reads COCO: crops of 1024 pixels.
_base_ = ['./cocostuff164k_512.py', './fcclip_pipelines.py']

crop_size = _base_.fcclip_crop
train_pipeline = _base_.fcclip_train
test_pipeline = _base_.fcclip_test

train_dataloader = dict(
    batch_size=2, dataset=dict(dataset=dict(pipeline=train_pipeline))
)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
