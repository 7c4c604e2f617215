# Superpixels, each named by the mean of the tiny CLIP's dense features below it.
_base_ = [
    '../_base_/models/two_stage_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
# Nothing is trained, so nothing of the training half is configured.
train_dataloader = None
