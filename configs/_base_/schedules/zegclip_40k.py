_base_ = ['./zegclip_20k.py']

max_iters = 40000
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
