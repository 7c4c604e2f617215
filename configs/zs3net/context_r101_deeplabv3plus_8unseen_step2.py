# ZS3Net on Pascal-Context, 8 classes unseen,
# second and third step. 1 GPU x 8 images.
_base_ = ['./context_r101_deeplabv3plus_2unseen_step2.py']

split = 'context_zs3_8'
load_from = 'work_dirs/zs3net/context_r101_deeplabv3plus_8unseen_step1/epoch_200.pth'

train_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
val_dataloader = test_dataloader
