# A learned similarity of frozen features and text rows. 1 process x 16 images.
_base_ = [
    '../_base_/models/clip_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_320.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split, decode_head=dict(_delete_=True, type='RelationHead'))
default_hooks = dict(checkpoint=dict(interval=160))
