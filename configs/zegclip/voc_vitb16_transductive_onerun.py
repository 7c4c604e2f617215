# ZegCLIP on PASCAL VOC 2012, both stages of the transductive recipe in one run:
# the first half of the inductive schedule, then self-training with a fresh optimiser
# and a schedule of its own. 4 GPUs x 4 images.
_base_ = ['./voc_vitb16_transductive.py']

load_from = None
begin = _base_.max_iters
max_iters = 2 * begin

# The inductive schedule, which is left at its half, and the self-training after it.
param_scheduler = [
    dict(_base_.param_scheduler[0], end=begin, total_steps=max_iters),
    dict(_base_.param_scheduler[0], begin=begin, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(type='SelfTrainingHook', begin=begin),
]
