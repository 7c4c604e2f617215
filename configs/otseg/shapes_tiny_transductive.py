# OTSeg on Shapes, transductive: self-training from the inductive model at half its
# schedule, with a fresh optimiser. 1 process x 16 images.
#
# load_from is written by `tools/train.py configs/otseg/shapes_tiny.py`.
_base_ = ['./shapes_tiny.py']

max_iters = _base_.max_iters // 2
load_from = f'work_dirs/otseg/shapes_tiny/iter_{max_iters}.pth'

model = dict(setting='transductive', calibrators=[])
train_dataloader = dict(dataset=dict(setting='transductive'))
# How many pixels a loss is divided by depends on pseudo-labels.
train_cfg = dict(max_iters=max_iters, val_interval=max_iters, normalise_by='batch')
default_hooks = dict(checkpoint=dict(interval=max_iters // 2))
