# LSeg on the usual zero-shot split of PASCAL VOC 2012, which is ours and not published:
# only rows of seen classes in training, all classes compete in the test. 4 GPUs x 4
# images.
_base_ = [
    '../_base_/models/lseg_vitl16.py',
    '../_base_/datasets/voc12_512.py',
    '../_base_/schedules/lseg_20k.py',
]

model = dict(
    split=_base_.split,
    data_preprocessor=dict(size=_base_.crop_size, size_divisor=None),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(426, 426)),
)
