# LSeg's optimiser and decay in iterations: 4 GPUs x 4 images.
_base_ = ['./lseg_240e.py']

max_iters = 20000

optim_wrapper = dict(accumulative_counts=1)
param_scheduler = [dict(type='WarmupPolyLR', power=0.9, by_epoch=False)]
train_cfg = dict(
    _delete_=True,
    type='IterBasedTrainLoop',
    max_iters=max_iters,
    val_interval=max_iters,
)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=max_iters // 10),
)
