# LSeg's two-word network on Shapes: each image with "others" and one name, the unseen
# classes of the split as the fold. 1 process x 8 pairs.
_base_ = [
    '../_base_/models/lseg_shapes_tiny.py',
    '../_base_/models/lseg_two_words.py',
    '../_base_/datasets/shapes_prompts.py',
    '../_base_/schedules/lseg_800.py',
    '../_base_/default_runtime.py',
]

model = dict(_base_.lseg_two_words, split=_base_.split)
train_dataloader = dict(batch_size=8, dataset=dict(unseen_policy='ignore'))
default_hooks = dict(checkpoint=dict(interval=400))
auto_scale_lr = dict(base_batch_size=8)
