# Testing only: the released weights of ResNet-50, converted, on PASCAL VOC's
# 20 classes.
_base_ = [
    '../_base_/models/fcclip_r50.py',
    '../_base_/datasets/voc12_fcclip_names.py',
    '../_base_/default_runtime.py',
]

model = dict(split='fcclip_coco_133', setting='supervised', test_split=_base_.split)
train_dataloader = None
val_dataloader = None
