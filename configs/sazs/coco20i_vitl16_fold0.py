# SAZS's ViT on fold 0 of COCO-20i, see pascal5i_vitl16_fold0.py. 1 GPU x 6 pairs.
_base_ = [
    '../_base_/models/sazs_vitl16.py',
    '../_base_/datasets/coco20i_sazs.py',
    '../_base_/schedules/sazs_20e.py',
]

model = dict(split=_base_.split)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
