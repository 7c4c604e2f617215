# TagCLIP on Pascal-Context, transductive: self-training from the inductive model after
# 20000 iterations, with a fresh optimiser. With pseudo-labels, which the released code
# means to make. 8 GPUs x 2 images.
#
# load_from is written by `tools/train.py configs/tagclip/context_vitb16.py`; another
# place goes in with --cfg-options load_from=FILE.
_base_ = ['./context_vitb16.py']

max_iters = 20000
load_from = 'work_dirs/tagclip/context_vitb16/iter_20000.pth'

model = dict(setting='transductive', calibrators=[dict(type='TrustGate')])
train_dataloader = dict(dataset=dict(setting='transductive'))
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters // 10))
