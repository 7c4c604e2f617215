# ZegFormer's decoders on the frozen image tower of the tiny CLIP, which is ours and not
# the published method: four of its maps, all of stride 8.
_base_ = ['./zegformer_shapes_tiny.py']

width = 128

model = dict(
    backbone=dict(
        _delete_=True,
        type='OpenCLIPViT',
        arch='zs3-shapes-tiny',
        pretrained='shapes',
        out_indices=(1, 3, 4, 5),
    ),
    decode_head=dict(in_channels=[width] * 4),
)
