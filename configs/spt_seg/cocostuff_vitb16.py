# SPT-SEG on COCO-Stuff 164k, inductive, with the schedule of ZegCLIP. 4 GPUs x 4
# images.
_base_ = [
    '../_base_/models/spt_seg_vitb16.py',
    '../_base_/datasets/cocostuff164k_512.py',
    '../_base_/schedules/zegclip_80k.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split=_base_.split,
    class_embeddings=dict(templates='zegclip'),
    backbone=dict(prompts=dict(num_tokens=100)),
)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
