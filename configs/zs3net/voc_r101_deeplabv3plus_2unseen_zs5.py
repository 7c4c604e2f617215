# Self-training (ZS5Net) on PASCAL VOC 2012, 2 classes unseen: the segmentor of the
# first step learns all classes, unseen ones from pseudo-labels. 1 GPU x 16 images.
# Before:
#   python tools/make_pseudo_labels.py
#     configs/zs3net/voc_r101_deeplabv3plus_2unseen_step2.py
#     work_dirs/zs3net/voc_r101_deeplabv3plus_2unseen_step2/epoch_30.pth --top 25
#     --out-dir work_dirs/zs3net/voc_r101_deeplabv3plus_2unseen_step2/pseudo_labels
#
# The paper tells the share of 25 %, and the official code how maps are read. Length and
# start of the training, and what becomes of the other pixels, are told nowhere.
_base_ = ['./voc_r101_deeplabv3plus_2unseen_step1.py']

max_epochs = 30
load_from = 'work_dirs/zs3net/voc_r101_deeplabv3plus_2unseen_step1/epoch_200.pth'

model = dict(backbone=dict(init_cfg=None))
train_dataloader = dict(
    dataset=dict(
        unseen_policy='ignore',
        pseudo_label_dir='work_dirs/zs3net/voc_r101_deeplabv3plus_2unseen_step2/'
        'pseudo_labels',
    )
)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(interval=5))
