# ESZSL on frozen CLIP: one matrix between features and text rows, in closed form from
# 1,000 images; 64 iterations then learn how sure its scores are. 1 process x 16 images.
_base_ = [
    '../_base_/models/clip_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/fitted_64.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split=_base_.split,
    decode_head=dict(_delete_=True, type='BilinearCompatibilityHead', normalize=True),
)
custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(type='ClosedFormFitHook', num_images=1000),
]
