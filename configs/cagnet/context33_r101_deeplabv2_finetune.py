# CaGNet on Pascal-Context with 33 classes, second part: rounds of fine-tuning. 1 GPU x
# 8 images. load_from is written by the first part.
_base_ = [
    './context33_r101_deeplabv2_train.py',
    '../_base_/schedules/cagnet_rounds.py',
]

max_iters = 10000
load_from = 'work_dirs/cagnet/context33_r101_deeplabv2_train/iter_40000.pth'

model = dict(cycle=_base_.cagnet_cycle, generated_size=_base_.cagnet_generated_size)
optim_wrapper = dict(
    classifier=dict(optimizer=dict(lr=_base_.cagnet_rate)),
    generator=dict(optimizer=dict(lr=_base_.cagnet_rate)),
)
steps = dict(
    _base_.cagnet_steps, milestones=list(range(5000, max_iters, 1000)), gamma=0.3
)
param_scheduler = dict(segmentor=[], classifier=[steps], generator=[steps])
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
