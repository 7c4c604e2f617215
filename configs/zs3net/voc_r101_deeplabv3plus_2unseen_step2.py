# ZS3Net on PASCAL VOC 2012, 2 classes unseen, second and third step: generator and
# classifier. 1 GPU x 8 images. load_from is written by the first step.
_base_ = [
    './voc_r101_deeplabv3plus_2unseen_step1.py',
    '../_base_/schedules/zs3_retraining.py',
]

max_epochs = 30
load_from = 'work_dirs/voc_r101_deeplabv3plus_2unseen_step1/epoch_200.pth'

model = dict(
    backbone=dict(init_cfg=None),
    decode_head=dict(loss_decode=dict(loss_weight=1 / _base_.zs3_batch_size)),
)
train_dataloader = dict(
    batch_size=_base_.zs3_batch_size,
    dataset=dict(setting='layout_oracle', unseen_policy='ignore'),
)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(interval=5))
auto_scale_lr = dict(base_batch_size=_base_.zs3_batch_size)
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
