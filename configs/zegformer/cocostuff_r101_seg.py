# ZegFormer-seg on COCO-Stuff 164k, ResNet-101: the model of cocostuff_r101.py, and its
# weights, without a second look. 8 GPUs x 4 images.
_base_ = [
    '../_base_/models/zegformer_r101.py',
    '../_base_/models/zegformer_seg.py',
    '../_base_/datasets/cocostuff_zegformer.py',
    '../_base_/schedules/zegformer_60k.py',
]

model = dict(
    _base_.zegformer_seg,
    split=_base_.split,
    class_embeddings=dict(templates='imagenet_select'),
)
