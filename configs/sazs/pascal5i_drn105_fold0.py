# SAZS's DRN on fold 0 of PASCAL-5i, see pascal5i_vitl16_fold0.py. Test images keep
# their size. 1 GPU x 6 pairs.
_base_ = [
    '../_base_/models/sazs_drn105.py',
    '../_base_/datasets/pascal5i_sazs.py',
    '../_base_/schedules/sazs_20e.py',
]

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
model = dict(split=_base_.split)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
# The rate that the code names for its last layers lasts for no iteration.
optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(max_epochs=40)
