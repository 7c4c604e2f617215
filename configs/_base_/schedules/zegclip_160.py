# The published schedule in small, but for losses, which are those of all images of a
# step, however many batches and processes they come in.
_base_ = ['./zegclip_20k.py']

max_iters = 160

optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [dict(_base_.param_scheduler[0], warmup_steps=20)]
train_cfg = dict(type='StepTrainLoop', max_iters=max_iters, val_interval=max_iters)
