# The learning rate of ZegCLIP as the official code effectively applies it: every
# parameter that learns has the same learning rate and weight decay, norms and biases
# included. Made for 4 GPUs x 4 images.
max_iters = 20000

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.01),
)
# Its end follows train_cfg.max_iters.
param_scheduler = [
    dict(
        type='WarmupPolyLR',
        power=0.9,
        eta_min=1e-6,
        warmup_steps=1500,
        warmup_ratio=1e-6,
        by_epoch=False,
    )
]
# One evaluation at the end: the published weights are those of the last iteration, not
# the best ones on the test images. As in the official code, losses are those of the
# batch of each process.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
