# The other way round: dense CLIP names pixels, and each superpixel takes the name that
# most of its pixels have.
_base_ = ['../clip_dense/shapes_tiny.py']

model = dict(
    post_processors=[
        dict(
            type='MaskMajority',
            proposer=dict(type='SuperpixelProposer', num_segments=60, join_below=8.0),
        )
    ]
)
