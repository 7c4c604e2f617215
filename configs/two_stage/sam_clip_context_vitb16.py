# SAM's masks named by CLIP, on the 59 classes of Pascal-Context.
_base_ = [
    '../_base_/models/two_stage_vitb16.py',
    '../_base_/datasets/context59_512.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
train_dataloader = None
