# ZS3Net on PASCAL VOC 2012 without the masks of SBD, 4 classes unseen,
# first step. 1 GPU x 16 images.
_base_ = ['./voc12_train_r101_deeplabv3plus_2unseen_step1.py']

split = 'voc12_zs3_4'

train_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
val_dataloader = test_dataloader
