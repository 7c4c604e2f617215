# ESDA on Shapes with the shipped tiny CLIP: decoder and losses as released, unseen
# classes of the split as the fold. 1 process x 8 pairs.
_base_ = [
    '../_base_/models/esda_shapes_tiny.py',
    '../_base_/datasets/shapes_prompts.py',
    '../_base_/schedules/esda_400.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 2))
