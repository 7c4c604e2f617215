# FC-CLIP as published on COCO's panoptic masks of 133 classes, OpenAI's ResNet-50. Add
# --amp. 8 GPUs x 2 images.
_base_ = [
    '../_base_/models/fcclip_r50.py',
    '../_base_/datasets/coco_panoptic_fcclip.py',
    '../_base_/schedules/fcclip_368k.py',
]

model = dict(
    split=_base_.split,
    setting=_base_.setting,
    # As released where panoptic masks are made as well.
    test_cfg=dict(mask_sums='original'),
)
