# CLIP-RC on COCO-Stuff 164k with the labels of all classes, as published. 2 images per
# GPU.
_base_ = ['./cocostuff_vitb16.py']

model = dict(
    setting='supervised',
    decode_head=dict(
        recovery=dict(loss_weight=1.0),
        loss_decode=dict(mask_weight=100.0, dice_weight=1.5),
    ),
)
train_dataloader = dict(dataset=dict(setting='supervised'))
