# FC-CLIP on COCO-Stuff 156/15 with OpenAI's ResNet-50. Trained with mixed precision:
# add --amp. 8 GPUs x 2 images.
_base_ = [
    '../_base_/models/fcclip_r50.py',
    '../_base_/datasets/cocostuff_fcclip.py',
    '../_base_/schedules/fcclip_368k.py',
]

model = dict(split=_base_.split)
