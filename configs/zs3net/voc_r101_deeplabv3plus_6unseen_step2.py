# ZS3Net on PASCAL VOC 2012, 6 classes unseen,
# second and third step. 1 GPU x 8 images.
_base_ = ['./voc_r101_deeplabv3plus_2unseen_step2.py']

split = 'voc12_zs3_6'
load_from = 'work_dirs/zs3net/voc_r101_deeplabv3plus_6unseen_step1/epoch_200.pth'

train_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
val_dataloader = test_dataloader
