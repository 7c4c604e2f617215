# OTSeg on COCO-Stuff 164k, inductive, as published. 4 images per GPU; the number of
# GPUs is not published.
_base_ = [
    '../_base_/models/otseg_vitb16_100.py',
    '../_base_/datasets/cocostuff164k_512.py',
    '../_base_/schedules/zegclip_80k.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
