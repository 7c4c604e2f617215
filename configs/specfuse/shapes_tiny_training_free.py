# Eigensegments of the frozen tokens vote; nothing is trained.
_base_ = [
    '../_base_/models/specfuse_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split=_base_.split,
    decode_head=dict(delineator=None, fusion=None, train_affinity=False),
)
train_dataloader = None
