# 320 iterations: what two CPU cores finish while somebody watches. Losses are those of
# all images of a step, however many batches and processes they come in.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=20, end=320, eta_min=0.0, by_epoch=False),
]
train_cfg = dict(type='StepTrainLoop', max_iters=320, val_interval=320)
