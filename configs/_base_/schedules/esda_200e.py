# The recipe of ESDA's released code as it takes effect on PASCAL-5i. Its base_lr of
# 5e-5 is multiplied by 10 for every parameter; iterations are counted from 1, so the
# last one has learning rate 0. Training stops after 75 epochs without a better
# validation. 1 process x 8 pairs.
_base_ = ['../default_runtime.py']

patience = 75

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=5e-4, momentum=0.9, weight_decay=1e-4),
)
# Its end follows the number of epochs.
param_scheduler = [dict(type='WarmupPolyLR', power=0.9, steps_ahead=1, by_epoch=False)]
# As in the official code, losses are those of the batch of each process.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200, val_interval=1)

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
    early_stopping=dict(
        type='TrainingEarlyStoppingHook',
        monitor='mIoU',
        rule='greater',
        min_delta=0.0,
        patience=patience,
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
randomness = dict(seed=321)
