# TagCLIP on Pascal-Context, of which the authors have no config: the rest is as for
# ZegCLIP. It LEAKS: training knows where unseen pixels are. 8 GPUs x 2 images.
_base_ = [
    '../_base_/models/tagclip_vitb16.py',
    '../_base_/datasets/context59_512.py',
    '../_base_/schedules/zegclip_40k.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split=_base_.split,
    class_embeddings=dict(templates='zegclip'),
    backbone=dict(prompts=dict(num_tokens=35)),
)
train_dataloader = dict(batch_size=2, dataset=dict(setting='unseen_location'))
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
custom_hooks = [dict(type='ProtocolCheckHook', allow_leak=True)]
