# CLIP-RC on COCO-Stuff 164k, transductive: self-training from the inductive model after
# 40000 iterations, with a fresh optimiser. As published, but for the start, which is
# not: half of the schedule, as for VOC. 2 images per GPU.
#
# load_from is written by `tools/train.py configs/clip_rc/cocostuff_vitb16.py`; another
# place goes in with --cfg-options load_from=FILE.
_base_ = ['./cocostuff_vitb16.py']

max_iters = 40000
load_from = 'work_dirs/clip_rc/cocostuff_vitb16/iter_40000.pth'

model = dict(setting='transductive', calibrators=[])
train_dataloader = dict(dataset=dict(setting='transductive'))
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters // 10))
