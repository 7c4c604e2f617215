# ZS3Net on PASCAL VOC 2012, 10 classes unseen,
# first step. 1 GPU x 16 images.
_base_ = ['./voc_r101_deeplabv3plus_2unseen_step1.py']

split = 'voc12_zs3_10'

train_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
val_dataloader = test_dataloader
