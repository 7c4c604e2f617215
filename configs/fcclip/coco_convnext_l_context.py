# Testing only: the released weights of ConvNeXt-L, converted, on Pascal-Context's
# 59 classes.
_base_ = [
    '../_base_/models/fcclip_convnext_l.py',
    '../_base_/datasets/context59_fcclip_names.py',
    '../_base_/default_runtime.py',
]

model = dict(split='fcclip_coco_133', setting='supervised', test_split=_base_.split)
train_dataloader = None
val_dataloader = None
