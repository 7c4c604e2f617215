# Testing only: the checkpoint of cocostuff_vitb16.py on PASCAL VOC 2012, whose 20
# classes are asked for by name, with the eight sentences of the training. Its mIoU is
# the cross-dataset figure; all classes count alike, so seen scores are not shifted.
_base_ = [
    '../_base_/models/otseg_vitb16_100.py',
    '../_base_/datasets/voc12_512.py',
    '../_base_/default_runtime.py',
]

model = dict(split='cocostuff_156_15', test_split=_base_.split, calibrators=[])
train_dataloader = None
