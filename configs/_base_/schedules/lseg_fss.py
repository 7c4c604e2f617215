# LSeg's two-word training on FSS-1000, which the released code does not stop early: as
# on the folds, but over the whole decay of 200 epochs.
_base_ = ['./lseg_fold.py']

max_epochs = 200

param_scheduler = [dict(type='WarmupPolyLR', power=0.9, by_epoch=True)]
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=10))
