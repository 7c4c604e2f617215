# ZS3Net on PASCAL VOC 2012 without the masks of SBD, 2 classes unseen, first step.
# 1 GPU x 16 images.
_base_ = ['./voc_r101_deeplabv3plus_2unseen_step1.py']

train_dataloader = dict(dataset=dict(dataset=dict(datasets=_base_.zs3_train_sets[:1])))
