# LSeg on Shapes, a small ViT from scratch, seen rows only in training: all it knows of
# unseen classes is how their words lie to those of seen ones. 1 process x 16 images.
_base_ = [
    '../_base_/models/lseg_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_1600.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
default_hooks = dict(checkpoint=dict(interval=800))
