# CaGNet on PASCAL VOC 2012, self-training: joint training, then rounds, with labels of
# unseen classes for ignored pixels. 1 GPU x 8 images. The released configs for it do
# not run, and this one is put together from what they say. load_from is written by the
# fine-tuning.
_base_ = ['./voc_r101_deeplabv2_finetune.py']

joint_iters = 10000
max_iters = 20000
load_from = 'work_dirs/cagnet/voc_r101_deeplabv2_finetune/iter_6000.pth'

model = dict(
    setting='transductive', cycle=dict(joint_iters=joint_iters), self_training_top=10
)
train_dataloader = dict(dataset=dict(setting='transductive'))
steps = dict(_base_.cagnet_steps, milestones=[joint_iters], gamma=0.1)
param_scheduler = dict(
    segmentor=[
        dict(type='WarmupPolyLR', power=0.9, update_interval=10, by_epoch=False)
    ],
    classifier=[steps],
    generator=[steps],
)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
