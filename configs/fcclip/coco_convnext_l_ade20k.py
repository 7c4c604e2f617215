# Testing only: the released weights of ConvNeXt-L, converted, on ADE20K's 150 classes.
# Masks are summed at the size of the picture, as released.
_base_ = [
    '../_base_/models/fcclip_convnext_l.py',
    '../_base_/datasets/ade20k_fcclip_names.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split='fcclip_coco_133',
    setting='supervised',
    test_split=_base_.split,
    test_cfg=dict(mask_sums='original', return_scores=False),
)
train_dataloader = None
val_dataloader = None
