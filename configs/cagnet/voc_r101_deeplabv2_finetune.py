# CaGNet on PASCAL VOC 2012, second part: rounds of fine-tuning. 1 GPU x 8 images.
# load_from is written by the first part.
_base_ = ['./voc_r101_deeplabv2_train.py', '../_base_/schedules/cagnet_rounds.py']

max_iters = 6000
load_from = 'work_dirs/cagnet/voc_r101_deeplabv2_train/iter_40000.pth'

model = dict(cycle=_base_.cagnet_cycle, generated_size=_base_.cagnet_generated_size)
optim_wrapper = dict(
    classifier=dict(optimizer=dict(lr=_base_.cagnet_rate)),
    generator=dict(optimizer=dict(lr=_base_.cagnet_rate)),
)
steps = dict(
    _base_.cagnet_steps, milestones=list(range(3000, max_iters, 1000)), gamma=0.1
)
param_scheduler = dict(segmentor=[], classifier=[steps], generator=[steps])
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
