# Both stages of the transductive recipe on Shapes in one run. 1 process x 16 images.
_base_ = ['./shapes_tiny_transductive.py']

load_from = None
# The inductive schedule, which is left at its half, and the self-training after it.
inductive_iters = 240
begin = inductive_iters // 2
max_iters = begin + _base_.max_iters

param_scheduler = [
    dict(_base_.param_scheduler[0], end=begin, total_steps=inductive_iters),
    dict(_base_.param_scheduler[0], begin=begin, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(type='SelfTrainingHook', begin=begin),
]
