# SpecFuse on the frozen tiny CLIP: shallow maps for edges, deep ones for the affinity.
_base_ = './clip_shapes_tiny.py'

model = dict(
    backbone=dict(out_indices=(1, 2, 4, 5, -1)),
    decode_head=dict(
        _delete_=True,
        type='SpecFuseHead',
        in_index=[0, 1, 2, 3, 4],
        delineator=dict(channels=32, stem_channels=16),
        channels=128,
        affinity_channels=32,
        # That of the training-free head on these tokens.
        scale=40.0,
    ),
)
