# ESDA on fold 0 of COCO-20i, options and recipe as released, except that the checkpoint
# is chosen on held-out images by the classes of the training. 1 GPU x 32 pairs.
_base_ = [
    '../_base_/models/esda_vitb16.py',
    '../_base_/datasets/coco20i.py',
    '../_base_/schedules/esda_200e.py',
]

image_size = (_base_.size, _base_.size)
model = dict(
    split=_base_.split,
    data_preprocessor=dict(size=image_size),
    backbone=dict(image_size=image_size),
)
# base_lr is 1e-4 here, times 10.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(early_stopping=dict(patience=50))
auto_scale_lr = dict(base_batch_size=32)
