# ZS3Net on Pascal-Context, 6 classes unseen,
# first step. 1 GPU x 10 images.
_base_ = ['./context_r101_deeplabv3plus_2unseen_step1.py']

split = 'context_zs3_6'

train_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
val_dataloader = test_dataloader
