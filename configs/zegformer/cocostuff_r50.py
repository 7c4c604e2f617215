# ZegFormer on COCO-Stuff 164k, ResNet-50. Trained with mixed precision, as released:
# add --amp. 8 GPUs x 4 images.
_base_ = [
    '../_base_/models/zegformer_r50.py',
    '../_base_/datasets/cocostuff_zegformer.py',
    '../_base_/schedules/zegformer_60k.py',
]

model = dict(split=_base_.split, class_embeddings=dict(templates='imagenet_select'))
