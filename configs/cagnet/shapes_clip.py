# CaGNet on features of frozen CLIP, those of zs3net/shapes_clip.py. 1 process x 8
# images.
_base_ = [
    '../_base_/models/cagnet_clip_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/default_runtime.py',
]

joint_iters = 120
max_iters = 360

model = dict(
    split=_base_.split,
    # At forty times the published rate of fine-tuning, 100 iterations on generated
    # features alone would forget the seen classes.
    cycle=dict(joint_iters=joint_iters, real_iters=2, generated_iters=2),
    # Of a scene of 112 x 112, so that no trunk runs where no image is needed.
    generated_size=(14, 14),
)
train_dataloader = dict(batch_size=8)
adam = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=2e-3))
optim_wrapper = dict(
    constructor='PartsOptimWrapperConstructor',
    segmentor=adam,
    classifier=adam,
    generator=adam,
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=joint_iters))
