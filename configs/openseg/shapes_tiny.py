# OpenSeg on Shapes: masks of seen classes teach masks without their classes, captions
# teach names. Words of unseen classes are left out. 1 process x 16 images.
_base_ = [
    '../_base_/models/openseg_shapes_tiny.py',
    '../_base_/datasets/shapes_captions.py',
    '../_base_/schedules/zegformer_shapes_160.py',
]

model = dict(split=_base_.split)
