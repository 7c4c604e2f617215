# OTSeg on Pascal-Context, inductive, as published: crops of 480, test windows that move
# by 80 pixels, which makes its test slow. 4 images per GPU; the number of GPUs is not
# published.
_base_ = [
    '../_base_/models/otseg_vitb16.py',
    '../_base_/datasets/context59_480.py',
    '../_base_/schedules/zegclip_40k.py',
    '../_base_/default_runtime.py',
]

size = _base_.crop_size
model = dict(
    split=_base_.split,
    data_preprocessor=dict(size=size),
    # The official list of names has this one in two words.
    class_embeddings=dict(templates='otseg8', texts=dict(tvmonitor='tv monitor')),
    backbone=dict(image_size=size),
    test_cfg=dict(crop_size=size, stride=(80, 80), mask_size=size),
)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
