# ZS3Net with graph context on Pascal-Context, 2 classes unseen, second and third step.
# 1 GPU x 8 images. load_from is written by the first step.
_base_ = ['./context_r101_deeplabv3plus_2unseen_step2.py']

max_epochs = 100

custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(_base_.custom_hooks[1], graph=dict(loss_weight=0.1)),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
