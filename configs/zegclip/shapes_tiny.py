# ZegCLIP on Shapes with the shipped tiny CLIP, inductive. The head is as published, but
# for its start, and so is the tower, but for its last block;
# ../shapes/ablations/official_start.py has both as published. 1 process x 16 images.
_base_ = [
    '../_base_/models/zegclip_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/zegclip_160.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 2))
