# ZegFormer-seg on PASCAL VOC 2012, ResNet-50: the model of voc_r50.py, and its weights,
# without a second look. 8 GPUs x 4 images.
_base_ = [
    '../_base_/models/zegformer_r50.py',
    '../_base_/models/zegformer_seg.py',
    '../_base_/datasets/voc12_zegformer.py',
    '../_base_/schedules/zegformer_10k.py',
]

model = dict(_base_.zegformer_seg, split=_base_.split)
