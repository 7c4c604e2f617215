# The optimiser of ZS3Net's code for all of its steps: the decode head has 10 times the
# learning rate of the backbone, and both fall to 0 over the whole run. The number of
# epochs is that of the first step. One evaluation at the end: the published weights are
# the last.
_base_ = ['../default_runtime.py']

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.007, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=10.0))),
)
# Its end follows the number of epochs.
param_scheduler = [dict(type='WarmupPolyLR', power=0.9, by_epoch=False)]
max_epochs = 200
# As in the official code, losses are those of the batch of each process.
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs
)

log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=10, max_keep_ckpts=2),
)
randomness = dict(seed=1)
