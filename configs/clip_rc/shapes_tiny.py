# CLIP-RC on Shapes with the shipped tiny CLIP, inductive. 1 process x 16 images.
_base_ = [
    '../_base_/models/clip_rc_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/zegclip_160.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 2))
