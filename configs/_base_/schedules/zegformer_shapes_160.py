# Half of it, for decoders on features that know the words already.
_base_ = ['./zegformer_shapes.py']

max_iters = 160

param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters // 2))
