# ZegFormer on Shapes, a small network from scratch; the tiny CLIP looks through the
# masks in the test. 1 process x 16 images.
_base_ = [
    '../_base_/models/zegformer_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/zegformer_shapes.py',
]

model = dict(split=_base_.split)
