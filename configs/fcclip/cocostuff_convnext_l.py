# FC-CLIP on COCO-Stuff 156/15, ConvNeXt-L: the published recipe with semantic masks of
# seen classes, which is ours. Trained with mixed precision, as released: add --amp. 8
# GPUs x 2 images.
_base_ = [
    '../_base_/models/fcclip_convnext_l.py',
    '../_base_/datasets/cocostuff_fcclip.py',
    '../_base_/schedules/fcclip_368k.py',
]

model = dict(split=_base_.split)
