# The segmentor of shapes_convnet.py alone: it has outputs for unseen classes, and
# nothing ever tells it to use them. 1 process x 16 images.
_base_ = [
    '../_base_/models/convnet_shapes.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_1600.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=2e-3))
default_hooks = dict(checkpoint=dict(interval=400))
