# CaGNet on Pascal-Context with 33 classes, 4 unseen, first part: everything learns
# together. 1 GPU x 8 images.
_base_ = [
    '../_base_/models/cagnet_deeplabv2_r101.py',
    '../_base_/datasets/context33_cagnet.py',
    '../_base_/schedules/cagnet_40k.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.cagnet_crop),
    split=_base_.split,
    decode_head=dict(num_classes=33),
    class_embeddings=dict(
        # The longer vectors of fastText outweigh those of word2vec here.
        source=dict(normalize_parts=False),
        texts=dict(diningtable='table', potted_plant='plant'),
    ),
    unseen_weight=15.0,
)
steps = dict(
    _base_.steps, milestones=list(range(10000, _base_.max_iters, 10000)), gamma=0.3
)
param_scheduler = dict(classifier=[steps], generator=[steps])
