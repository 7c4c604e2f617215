# ZegCLIP on Shapes: the published schedule in small, with the learning rate that a head
# needs in so few iterations: in 320 at 1e-3 it learned nothing but the grounds.
max_iters = 960

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.01),
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
