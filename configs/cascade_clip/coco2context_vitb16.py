# Testing only: the checkpoint of cocostuff_vitb16.py on Pascal-Context, whose 59
# classes are asked for by name. Its mIoU is the cross-dataset figure; all classes count
# alike, so seen scores are not shifted.
_base_ = [
    '../_base_/models/cascade_vitb16_50.py',
    '../_base_/datasets/context59_512.py',
    '../_base_/default_runtime.py',
]

model = dict(split='cocostuff_156_15', test_split=_base_.split, calibrators=[])
train_dataloader = None
