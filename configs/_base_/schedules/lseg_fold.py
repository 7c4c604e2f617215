# LSeg's two-word training as released: 4 epochs of a decay over 200, so that the rate
# hardly falls. Each step of b = 20 episodes holds their support and query images: 40.
_base_ = ['./lseg_240e.py']

max_epochs = 4

optim_wrapper = dict(optimizer=dict(lr=5e-3), accumulative_counts=1)
param_scheduler = [dict(type='WarmupPolyLR', power=0.9, total_steps=200, by_epoch=True)]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(interval=1))
