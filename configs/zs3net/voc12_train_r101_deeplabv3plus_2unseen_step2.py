# ZS3Net on PASCAL VOC 2012 without the masks of SBD, 2 classes unseen, second and third
# step. 1 GPU x 8 images. load_from is written by the first step.
_base_ = ['./voc_r101_deeplabv3plus_2unseen_step2.py']

load_from = (
    'work_dirs/zs3net/voc12_train_r101_deeplabv3plus_2unseen_step1/epoch_200.pth'
)

train_dataloader = dict(dataset=dict(dataset=dict(datasets=_base_.zs3_train_sets[:1])))
