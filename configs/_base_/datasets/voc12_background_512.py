# PASCAL VOC 2012 with background as a seen class: 21 classes, as in ZS3Net.
_base_ = ['./voc12_512.py']

split = 'voc12_zs3_10'

train_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
val_dataloader = test_dataloader
