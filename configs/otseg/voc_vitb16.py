# OTSeg on PASCAL VOC 2012, inductive, as published. 4 images per GPU; the number of
# GPUs is not published.
_base_ = [
    '../_base_/models/otseg_vitb16.py',
    '../_base_/datasets/voc12_512.py',
    '../_base_/schedules/zegclip_20k.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
