# ZS3Net on PASCAL VOC 2012, 2 classes unseen, second and third step: generator and
# classifier. 1 GPU x 8 images. load_from is written by the first step.
_base_ = [
    './voc_r101_deeplabv3plus_2unseen_step1.py',
    '../_base_/schedules/zs3_retraining.py',
]

max_epochs = 30
load_from = 'work_dirs/zs3net/voc_r101_deeplabv3plus_2unseen_step1/epoch_200.pth'

model = _base_.zs3_model
train_dataloader = _base_.zs3_train_dataloader
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = _base_.zs3_default_hooks
auto_scale_lr = _base_.zs3_auto_scale_lr
# The official vectors are divided by the length of the longest one. Which words they
# were made from is not written anywhere; these are the nearest ones by cosine.
custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(
        _base_.zs3_hook,
        class_embeddings=dict(_base_.zs3_hook.class_embeddings, normalize='max_norm'),
        vector_names=dict(diningtable='table', pottedplant='plant', tvmonitor='tv'),
    ),
]
