# LSeg-CLIP, which is ours: the decoder of LSeg on the frozen image tower of the tiny
# CLIP, whose patches already know the words. 1 process x 16 images.
_base_ = [
    '../_base_/models/lseg_shapes_tiny.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_320.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split=_base_.split,
    backbone=dict(
        _delete_=True,
        type='OpenCLIPViT',
        arch='zs3-shapes-tiny',
        pretrained='shapes',
        out_indices=(1, 3, 4, 5),
        out_cls_tokens=True,
    ),
)
default_hooks = dict(checkpoint=dict(interval=160))
