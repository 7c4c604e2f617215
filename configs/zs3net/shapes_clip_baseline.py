# The segmentor of shapes_clip.py alone: a linear classifier on frozen CLIP, a stock
# mmseg model on our backbone. 1 process x 16 images.
_base_ = [
    '../_base_/models/zs3_clip_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_320.py',
    '../_base_/default_runtime.py',
]

# A linear classifier needs no more.
max_iters = 160

optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(
        type='CosineAnnealingLR', begin=20, end=max_iters, eta_min=0.0, by_epoch=False
    ),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
