# ZS3Net on Pascal-Context, 2 classes unseen, first step: the segmentor learns the seen
# classes from images without unseen ones. 1 GPU x 10 images.
#
# The backbone starts from an ImageNet without the classes of Pascal-Context, which is a
# part of the protocol; common weights have seen them.
_base_ = [
    '../_base_/models/zs3_deeplabv3plus_r101.py',
    '../_base_/datasets/context60_zs3_312.py',
    '../_base_/schedules/zs3_sgd.py',
]

batch_size = 10

model = dict(
    data_preprocessor=dict(size=_base_.zs3_crop),
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='weights/resnet101_imagenet_wo_pascalcontext.pth',
        )
    ),
    decode_head=dict(
        num_classes=60,
        # The official code divides the mean over pixels by the number of images.
        loss_decode=dict(loss_weight=1 / batch_size),
    ),
)
train_dataloader = dict(batch_size=batch_size, dataset=dict(unseen_policy='drop_image'))
auto_scale_lr = dict(base_batch_size=batch_size)
