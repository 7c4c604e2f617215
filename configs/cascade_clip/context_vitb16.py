# Cascade-CLIP on Pascal-Context, inductive, as published. Its ten unseen classes are
# not those of OTSeg and of everyone else: split='context59_49_10' has these.
# 4 GPUs x 4 images.
_base_ = [
    '../_base_/models/cascade_vitb16_50.py',
    '../_base_/datasets/context59_512.py',
    '../_base_/schedules/zegclip_40k.py',
    '../_base_/default_runtime.py',
]

split = 'context59_cascade'
model = dict(split=split, backbone=dict(prompts=dict(num_tokens=35)))
train_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
val_dataloader = test_dataloader
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
