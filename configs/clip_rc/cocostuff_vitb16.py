# CLIP-RC on COCO-Stuff 164k, inductive, as published: 2 images per GPU. The number of
# GPUs is not; 8 make the batch of 16 that ZegCLIP has.
_base_ = [
    '../_base_/models/clip_rc_vitb16.py',
    '../_base_/datasets/cocostuff164k_512.py',
    '../_base_/schedules/zegclip_80k.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split=_base_.split,
    class_embeddings=dict(templates='zegclip'),
    backbone=dict(prompts=dict(num_tokens=100)),
    decode_head=dict(
        recovery=dict(loss_weight=50.0),
        loss_decode=dict(mask_weight=200.0, dice_weight=3.0),
    ),
)
train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
