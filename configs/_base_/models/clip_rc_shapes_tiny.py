# CLIP-RC sized to the tiny CLIP that ships with the package: of 14 x 14 patches, each
# region has 7 x 7.
_base_ = ['./zegclip_shapes_tiny.py']

model = dict(
    backbone=dict(
        extra_tokens=dict(
            type='RegionTokens', num_tokens=4, init='cls', trainable=False
        ),
    ),
    decode_head=dict(
        query_context='groups',
        memory=('group', 'image', 'patch'),
        two_way=True,
        mask_from='dot',
        recovery=dict(num_layers=1, loss_weight=2.0),
    ),
)
