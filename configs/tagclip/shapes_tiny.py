# TagCLIP on Shapes with the shipped tiny CLIP, inductive but for what LEAKS: training
# knows where unseen pixels are. 1 process x 16 images.
_base_ = [
    '../_base_/models/tagclip_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/zegclip_160.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
train_dataloader = dict(dataset=dict(setting='unseen_location'))
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 2))
custom_hooks = [dict(type='ProtocolCheckHook', allow_leak=True)]
