# OpenSeg in small on the frozen tiny CLIP that ships with the package. Pixel embeddings
# begin as its dense features, which is ours: the published ones are learned from
# nothing.
_base_ = ['./clip_shapes_tiny.py']

width = 128

model = dict(
    # The last one is in the space of the texts.
    backbone=dict(out_indices=(1, 3, 4, 5, -1)),
    decode_head=dict(
        _delete_=True,
        type='OpenSegHead',
        in_channels=[width] * 4,
        channels=64,
        text_index=-1,
        num_groups=8,
        num_queries=20,
        num_layers=3,
        num_heads=4,
        feedforward_channels=128,
        dropout=0.0,
    ),
)
