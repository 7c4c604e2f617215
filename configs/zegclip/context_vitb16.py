# ZegCLIP on Pascal-Context, inductive. 4 GPUs x 4 images. No config of the authors is
# public: 40k iterations are quoted from papers that compare with it, and 35 prompt
# tokens are what Cascade-CLIP, built on the same code, sets for this data.
_base_ = [
    '../_base_/models/zegclip_vitb16_100.py',
    '../_base_/datasets/context59_512.py',
    '../_base_/schedules/zegclip_40k.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split, backbone=dict(prompts=dict(num_tokens=35)))
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
