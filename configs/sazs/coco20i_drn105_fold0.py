# SAZS's DRN on fold 0 of COCO-20i, see pascal5i_vitl16_fold0.py. 1 GPU x 6 pairs.
_base_ = [
    '../_base_/models/sazs_drn105.py',
    '../_base_/datasets/coco20i_sazs.py',
    '../_base_/schedules/sazs_20e.py',
]

model = dict(split=_base_.split, backbone=dict(dropout_ratio=0.9))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
train_cfg = dict(max_epochs=10)
