# The published schedule in small.
max_iters = 240

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
)
# Its end follows train_cfg.max_iters.
param_scheduler = [
    dict(
        type='WarmupPolyLR',
        power=0.9,
        eta_min=1e-6,
        warmup_steps=20,
        warmup_ratio=1e-6,
        by_epoch=False,
    )
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
