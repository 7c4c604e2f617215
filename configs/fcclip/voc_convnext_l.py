# FC-CLIP on PASCAL VOC 15/5, ConvNeXt-L, a training of ours. Add --amp. 8 GPUs x 2
# images.
_base_ = [
    '../_base_/models/fcclip_convnext_l.py',
    '../_base_/datasets/voc12_fcclip.py',
    '../_base_/schedules/fcclip_20k.py',
]

model = dict(split=_base_.split)
