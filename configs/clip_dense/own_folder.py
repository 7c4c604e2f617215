# Dense CLIP on a folder of your own data: copy it and change the folder's name.
_base_ = [
    '../_base_/models/clip_shapes_tiny.py',
    '../_base_/datasets/folder.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
# Nothing is trained, so nothing of the training half is used.
train_dataloader = None
