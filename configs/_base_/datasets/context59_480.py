# Pascal-Context as OTSeg trains and tests on it: crops of 480 pixels, resized around
# 520, which is the short side of test images, too.
_base_ = ['./context59_512.py']

crop_size = (480, 480)
short_side = 520

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(_base_.train_pipeline[2], scale=(short_side, short_side)),
    dict(_base_.train_pipeline[3], crop_size=crop_size),
    *_base_.train_pipeline[4:],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(_base_.test_pipeline[1], scale=short_side),
    *_base_.test_pipeline[2:],
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
