# ZegFormer on PASCAL VOC 2012, ResNet-101, with the shorter schedule that was released
# first. 8 GPUs x 4 images.
_base_ = [
    '../_base_/models/zegformer_r101.py',
    '../_base_/datasets/voc12_zegformer.py',
    '../_base_/schedules/zegformer_10k.py',
]

model = dict(split=_base_.split)
