# ESDA on fold 0 of PASCAL-5i, options and recipe as released, except that the
# checkpoint is chosen on held-out images by the classes of the training. 1 GPU x 8
# pairs.
_base_ = [
    '../_base_/models/esda_vitb16.py',
    '../_base_/datasets/pascal5i.py',
    '../_base_/schedules/esda_200e.py',
]

model = dict(split=_base_.split)
