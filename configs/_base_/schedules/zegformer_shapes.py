# For ZegFormer's small network from scratch: one rate, far above the published one, for
# all of it.
_base_ = ['./schedule_320.py', '../default_runtime.py']

max_iters = 320

optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(
        type='CosineAnnealingLR', begin=20, end=max_iters, eta_min=0.0, by_epoch=False
    ),
]
# Losses of query masks do not say what they are divided by.
train_cfg = dict(max_iters=max_iters, val_interval=max_iters, normalise_by='batch')
default_hooks = dict(checkpoint=dict(interval=max_iters // 2))
