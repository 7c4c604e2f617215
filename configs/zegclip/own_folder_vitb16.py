# ZegCLIP with OpenAI's ViT-B/16 on a folder of your own photographs: copy it and change
# the folder's name. The learning rate was tuned for 4 GPUs x 4 images; for one GPU
# auto_scale_lr.enable=True scales it. 1 GPU x 4 images.
_base_ = [
    '../_base_/models/zegclip_vitb16.py',
    '../_base_/datasets/folder_512.py',
    '../_base_/schedules/zegclip_20k.py',
    '../_base_/default_runtime.py',
]

size = _base_.crop_size
model = dict(
    split=_base_.split,
    data_preprocessor=dict(size=size),
    backbone=dict(image_size=size),
    test_cfg=dict(crop_size=size, mask_size=size),
)
# With optim_wrapper.accumulative_counts=4, one GPU takes the steps of four.
train_cfg = dict(type='StepTrainLoop')
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 10))
