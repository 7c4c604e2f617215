# CaGNet on PASCAL VOC 2012, 5 classes unseen, first part: everything learns together.
# 1 GPU x 8 images.
_base_ = [
    '../_base_/models/cagnet_deeplabv2_r101.py',
    '../_base_/datasets/voc12_cagnet.py',
    '../_base_/schedules/cagnet_40k.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.cagnet_crop),
    split=_base_.split,
    decode_head=dict(num_classes=20),
    class_embeddings=dict(
        texts=dict(
            diningtable='dining table', pottedplant='potted plant', tvmonitor='tv'
        )
    ),
    # The released unseen rate is what is added to 1.
    unseen_weight=10.0,
)
