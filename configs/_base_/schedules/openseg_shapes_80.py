# Half of it again, for pixel embeddings alone, with proposals made anew at each step.
_base_ = ['./zegformer_shapes_160.py']

max_iters = 80

param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters // 2))
