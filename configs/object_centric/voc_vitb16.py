# Tokens of objects, after OC-ZSS, on PASCAL VOC 2012, inductive, with OTSeg's recipe.
# 4 GPUs x 4 images.
_base_ = [
    '../_base_/models/object_centric_vitb16.py',
    '../_base_/datasets/voc12_512.py',
    '../_base_/schedules/zegclip_20k.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
