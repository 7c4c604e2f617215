# SAZS on Shapes: one name against "others", edges without the faults of the released
# code, eigensegments chosen without ground truth. 1 process x 8 pairs.
_base_ = [
    '../_base_/models/sazs_shapes_tiny.py',
    '../_base_/datasets/shapes_prompts.py',
    '../_base_/schedules/esda_400.py',
    '../_base_/default_runtime.py',
]

train_pipeline = [
    *_base_.train_pipeline[:-1],
    dict(type='GenerateClassEdges'),
    _base_.train_pipeline[-1],
]
model = dict(split=_base_.split)
train_dataloader = dict(
    batch_size=8, dataset=dict(keep_classes=True, pipeline=train_pipeline)
)
# Everything is trained from scratch, at one rate.
optim_wrapper = dict(paramwise_cfg=None)
auto_scale_lr = dict(base_batch_size=8)
# The released code adds its loss at edges up over the images of a batch.
train_cfg = dict(normalise_by='batch')
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 2))
