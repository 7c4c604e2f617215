# Tokens of objects, after OC-ZSS, on COCO-Stuff 164k, inductive, with the 100 prompt
# tokens, the eight sentences and the recipe of OTSeg. 4 GPUs x 4 images.
_base_ = [
    '../_base_/models/object_centric_vitb16.py',
    '../_base_/datasets/cocostuff164k_512.py',
    '../_base_/schedules/zegclip_80k.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split=_base_.split,
    backbone=dict(prompts=dict(num_tokens=100)),
    class_embeddings=dict(templates='otseg8'),
)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
