# Self-training (ZS5Net) on Pascal-Context, 2 classes unseen. 1 GPU x 10 images. Before:
#   python tools/make_pseudo_labels.py
#     configs/zs3net/context_r101_deeplabv3plus_2unseen_step2.py
#     work_dirs/zs3net/context_r101_deeplabv3plus_2unseen_step2/epoch_20.pth --top 75
#     --out-dir work_dirs/zs3net/context_r101_deeplabv3plus_2unseen_step2/pseudo_labels
#
# The paper tells the share of 75 %; for the rest see the config of PASCAL VOC.
_base_ = ['./context_r101_deeplabv3plus_2unseen_step1.py']

max_epochs = 30
load_from = 'work_dirs/zs3net/context_r101_deeplabv3plus_2unseen_step1/epoch_200.pth'
pseudo_label_dir = (
    'work_dirs/zs3net/context_r101_deeplabv3plus_2unseen_step2/pseudo_labels'
)

model = dict(backbone=dict(init_cfg=None))
train_dataloader = dict(
    dataset=dict(unseen_policy='ignore', pseudo_label_dir=pseudo_label_dir)
)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(interval=5))
