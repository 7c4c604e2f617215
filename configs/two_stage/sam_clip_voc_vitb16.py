# SAM's masks named by CLIP, on PASCAL VOC 2012; the 20 classes without background.
_base_ = [
    '../_base_/models/two_stage_vitb16.py',
    '../_base_/datasets/voc12_512.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
train_dataloader = None
