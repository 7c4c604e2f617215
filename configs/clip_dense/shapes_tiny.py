# Dense CLIP without any training: text rows against patch tokens.
_base_ = [
    '../_base_/models/clip_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
# Nothing is trained, so nothing of the training half is configured.
train_dataloader = None
