# 1600 iterations from scratch: for small networks without pretrained weights.
_base_ = ['./schedule_320.py']

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=20, end=1600, eta_min=0.0, by_epoch=False),
]
train_cfg = dict(max_iters=1600, val_interval=1600)
