# GroupViT on PASCAL VOC 2012 with background: pixels whose best class scores below 0.95
# are background, the value of the released code.
_base_ = [
    '../_base_/models/groupvit.py',
    '../_base_/datasets/voc12_background_512.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split=_base_.split,
    decode_head=dict(prob_thd=0.95, bg_index=0),
)
resize = dict(_base_.test_pipeline[1], scale=_base_.short_side)
test_pipeline = [_base_.test_pipeline[0], resize, *_base_.test_pipeline[2:]]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
# Nothing is trained, so nothing of the training half is used.
train_dataloader = None
