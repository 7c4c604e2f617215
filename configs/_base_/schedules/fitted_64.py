# For heads in closed form: 64 iterations of one number, the factor on their scores.
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.05, weight_decay=0.0)
)
param_scheduler = [
    dict(type='CosineAnnealingLR', begin=0, end=64, eta_min=0.0, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=64, val_interval=64)
