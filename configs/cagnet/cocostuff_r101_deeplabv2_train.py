# CaGNet on COCO-Stuff 164k, 15 classes unseen, first part: everything learns together.
# 1 GPU x 8 images. The released run starts from a trunk of SPNet, trained on the seen
# classes.
_base_ = [
    '../_base_/models/cagnet_deeplabv2_r101.py',
    '../_base_/datasets/cocostuff_cagnet.py',
    '../_base_/schedules/cagnet_40k.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.cagnet_crop),
    split=_base_.split,
    backbone=dict(init_cfg=dict(checkpoint='weights/resnet101_spnet_cocostuff.pth')),
    decode_head=dict(num_classes=182),
    class_embeddings=dict(
        texts=dict(playingfield='playing field', waterdrops='water drops')
    ),
    unseen_weight=60.0,
    loss_weights=dict(generated=dict(classifier_fake=1.0, generator_fake=1.0)),
)
optim_wrapper = dict(classifier=dict(optimizer=dict(lr=5e-4)))
starts = dict(
    classifier=list(range(10000, _base_.max_iters, 10000)),
    generator=list(range(10000, _base_.max_iters, 5000)),
)
param_scheduler = dict(
    segmentor=[
        dict(type='WarmupPolyLR', power=0.9, update_interval=100, by_epoch=False)
    ],
    classifier=[dict(_base_.steps, milestones=starts['classifier'], gamma=0.3)],
    generator=[dict(_base_.steps, milestones=starts['generator'], gamma=0.3)],
)
