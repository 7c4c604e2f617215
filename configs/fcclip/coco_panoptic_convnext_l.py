# FC-CLIP as published: COCO's panoptic masks of 133 classes, one target for each thing,
# ConvNeXt-L. Trained with mixed precision, as released: add --amp. 8 GPUs x 2 images.
_base_ = [
    '../_base_/models/fcclip_convnext_l.py',
    '../_base_/datasets/coco_panoptic_fcclip.py',
    '../_base_/schedules/fcclip_368k.py',
]

model = dict(
    split=_base_.split,
    setting=_base_.setting,
    # As released where panoptic masks are made as well.
    test_cfg=dict(mask_sums='original'),
)
