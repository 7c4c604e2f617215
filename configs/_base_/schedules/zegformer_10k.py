_base_ = ['./zegformer_60k.py']

max_iters = 10000
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters // 4))
