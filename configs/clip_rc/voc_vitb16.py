# CLIP-RC on PASCAL VOC 2012, inductive, as published. 2 GPUs x 8 images.
_base_ = [
    '../_base_/models/clip_rc_vitb16.py',
    '../_base_/datasets/voc12_512.py',
    '../_base_/schedules/zegclip_40k.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
train_dataloader = dict(batch_size=8)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
