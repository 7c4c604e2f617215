# ESDA on Shapes: the released decay in small, with an optimiser that gets a new decoder
# somewhere in 400 iterations, about three minutes on one CPU core.
max_iters = 400

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    # What is added to the tower starts from CLIP's own ties of text and patches, which
    # the names of the training alone would wear out.
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}),
    clip_grad=dict(max_norm=1.0),
)
# Its end follows train_cfg.max_iters.
param_scheduler = [
    dict(type='WarmupPolyLR', power=0.9, warmup_steps=20, by_epoch=False)
]
train_cfg = dict(type='StepTrainLoop', max_iters=max_iters, val_interval=max_iters)
