# Tokens of objects, after OC-ZSS, on Shapes with the shipped tiny CLIP, inductive, with
# as many iterations as OTSeg. 1 process x 16 images.
_base_ = [
    '../_base_/models/object_centric_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/zegclip_160.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 2))
