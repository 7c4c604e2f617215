# LSeg on Shapes, a small ViT from scratch, seen rows only in training: all it knows of
# unseen classes is how their words lie to those of seen ones. 1 process x 8 images.
_base_ = [
    '../_base_/models/lseg_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/lseg_800.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
train_dataloader = dict(batch_size=8)
default_hooks = dict(checkpoint=dict(interval=400))
auto_scale_lr = dict(base_batch_size=8)
