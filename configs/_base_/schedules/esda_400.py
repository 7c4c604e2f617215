# ESDA on Shapes: the released decay in small, with an optimiser that gets a new decoder
# somewhere in 400 iterations.
max_iters = 400

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
# Its end follows train_cfg.max_iters.
param_scheduler = [
    dict(type='WarmupPolyLR', power=0.9, warmup_steps=20, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
