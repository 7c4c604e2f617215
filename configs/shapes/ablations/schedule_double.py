# Twice the iterations.
_base_ = ['../../zegclip/shapes_tiny.py']

max_iters = 2 * _base_.max_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
