# SAZS's ViT on fold 0 of PASCAL-5i, options and recipe as released, except that the
# checkpoint is chosen on held-out images by the classes of the training, and that
# eigensegments are chosen without ground truth. 1 GPU x 6 pairs.
_base_ = [
    '../_base_/models/sazs_vitl16.py',
    '../_base_/datasets/pascal5i_sazs.py',
    '../_base_/schedules/sazs_20e.py',
]

model = dict(split=_base_.split)
