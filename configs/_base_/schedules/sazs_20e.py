# The recipe of SAZS's released ViT code: SGD with one learning rate for all weights,
# which falls after each epoch. 1 process x 6 pairs.
_base_ = ['../default_runtime.py']

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=1e-3, momentum=0.9, weight_decay=1e-4),
)
# Its end follows the number of epochs.
param_scheduler = [dict(type='WarmupPolyLR', power=0.9, by_epoch=True)]
# As in the official code, losses are those of the batch of each process.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=1)

log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True),
    checkpoint=dict(
        by_epoch=True,
        interval=1,
        max_keep_ckpts=1,
        save_best='mIoU',
        rule='greater',
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=6)
