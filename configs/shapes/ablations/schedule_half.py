# Half the iterations.
_base_ = ['../../zegclip/shapes_tiny.py']

max_iters = _base_.max_iters // 2
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
