# CLIP-RC on PASCAL VOC 2012, transductive: self-training from the inductive model after
# 20000 iterations, with a fresh optimiser. As published. 2 GPUs x 8 images.
#
# load_from is written by `tools/train.py configs/clip_rc/voc_vitb16.py`; another place
# goes in with --cfg-options load_from=FILE.
_base_ = ['./voc_vitb16.py']

max_iters = 20000
load_from = 'work_dirs/clip_rc/voc_vitb16/iter_20000.pth'

model = dict(setting='transductive', calibrators=[])
train_dataloader = dict(dataset=dict(setting='transductive'))
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters // 10))
