# The model of shapes_tiny_clip.py, and its weights, without a second look. 1 process x
# 16 images.
_base_ = [
    '../_base_/models/zegformer_shapes_tiny_clip.py',
    '../_base_/models/zegformer_seg.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/zegformer_shapes_160.py',
]

model = dict(_base_.zegformer_seg, split=_base_.split)
