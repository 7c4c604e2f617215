# 800 iterations of 8 images for LSeg's small networks from scratch, some ten minutes on
# one CPU core.
_base_ = ['./schedule_320.py']

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=20, end=800, eta_min=0.0, by_epoch=False),
]
train_cfg = dict(max_iters=800, val_interval=800)
