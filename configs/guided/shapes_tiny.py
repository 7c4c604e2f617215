# Our own head on Shapes with the shipped tiny CLIP, inductive, with as many iterations
# as ZegCLIP. 1 process x 16 images.
_base_ = [
    '../_base_/models/guided_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/guided_160.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 2))
