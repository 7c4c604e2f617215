# The recipe of LSeg's released code as it takes effect on ADE20K: the rate is
# 0.004 * b / 16 for b images per process and step, without counting that gradients of
# two steps are accumulated; it falls once per epoch. What is new, but for the layers
# that turn tokens into maps, learns ten times as fast. No mixed precision: the code
# says that it leads to NaN. Made for 4 images per process; the weights that were
# published are the last.
_base_ = ['../default_runtime.py']

max_epochs = 240

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=1e-3, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(
        custom_keys={
            'decode_head': dict(lr_mult=10.0),
            'decode_head.reassemble_blocks': dict(lr_mult=1.0),
        }
    ),
    accumulative_counts=2,
)
# Its end follows the number of epochs.
param_scheduler = [dict(type='WarmupPolyLR', power=0.9, by_epoch=True)]
# As in the official code, losses are those of the batch of each process.
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs
)

log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=10, max_keep_ckpts=2),
)
