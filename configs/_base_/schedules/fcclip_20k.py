# The recipe for small data sets, ours: the published shares of a shorter training.
_base_ = ['./fcclip_368k.py']

max_iters = 20000

param_scheduler = [
    dict(
        type='MultiStepLR',
        milestones=[max_iters * 8 // 9, max_iters * 26 // 27],
        gamma=0.1,
        by_epoch=False,
    )
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters // 4))
