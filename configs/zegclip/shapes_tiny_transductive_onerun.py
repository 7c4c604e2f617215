# Both stages of the transductive recipe on Shapes in one run. 1 process x 16 images.
_base_ = ['./shapes_tiny_transductive.py']

load_from = None
# The inductive schedule, which is left at its half, and the self-training after it.
begin = _base_.max_iters
max_iters = 2 * begin

param_scheduler = [
    dict(_base_.param_scheduler[0], end=begin, total_steps=max_iters),
    dict(_base_.param_scheduler[0], begin=begin, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(type='SelfTrainingHook', begin=begin),
]
