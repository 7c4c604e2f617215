# FC-CLIP on Pascal-Context 49/10, ConvNeXt-L, a training of ours. Add --amp. 8 GPUs x 2
# images.
_base_ = [
    '../_base_/models/fcclip_convnext_l.py',
    '../_base_/datasets/context59_fcclip.py',
    '../_base_/schedules/fcclip_20k.py',
]

model = dict(split=_base_.split)
