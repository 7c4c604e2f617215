# SPT-SEG on Pascal-Context, inductive, with the schedule of ZegCLIP. 4 GPUs x 4 images.
_base_ = [
    '../_base_/models/spt_seg_vitb16.py',
    '../_base_/datasets/context59_512.py',
    '../_base_/schedules/zegclip_40k.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split=_base_.split,
    class_embeddings=dict(templates='zegclip'),
    backbone=dict(prompts=dict(num_tokens=35)),
)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
