# ZegFormer on PASCAL VOC 2012, ResNet-101, the paper's main model. 30,000 iterations:
# the authors found 10,000 unstable. 8 GPUs x 4 images.
_base_ = [
    '../_base_/models/zegformer_r101.py',
    '../_base_/datasets/voc12_zegformer.py',
    '../_base_/schedules/zegformer_30k.py',
]

model = dict(split=_base_.split)
