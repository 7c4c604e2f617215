# ZegCLIP on Shapes with the shipped tiny CLIP, inductive. Options as published, but for
# the start of the head and the last block; ../shapes/ablations/official_start.py has
# those, too. 1 process x 16 images.
_base_ = [
    '../_base_/models/zegclip_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/zegclip_160.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 2))
