# ZegFormer's decoders on the frozen tiny CLIP, which looks through the masks in the
# test, too. Ours: the published network is never CLIP's. 1 process x 16 images.
_base_ = [
    '../_base_/models/zegformer_shapes_tiny_clip.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/zegformer_shapes_160.py',
]

model = dict(split=_base_.split)
