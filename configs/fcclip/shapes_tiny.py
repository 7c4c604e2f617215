# FC-CLIP's decoders on Shapes and the frozen tiny CLIP, a transformer: FC-CLIP-style,
# and ours. 1 process x 16 images.
_base_ = [
    '../_base_/models/fcclip_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/zegformer_shapes_160.py',
]

model = dict(split=_base_.split)
