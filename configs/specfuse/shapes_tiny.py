# All boxes on, 1 process x 16 images; the first tenth trains edges and affinity alone.
_base_ = [
    '../_base_/models/specfuse_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_320.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split, decode_head=dict(warmup_iters=32))
# Its losses do not say what they are divided by.
train_cfg = dict(normalise_by='batch')
default_hooks = dict(checkpoint=dict(interval=160))
