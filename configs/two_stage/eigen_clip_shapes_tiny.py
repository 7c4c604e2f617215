# Eigensegments of colours, grouped so that they cover the image, named as superpixels
# are.
_base_ = ['./superpixel_clip_shapes_tiny.py']

model = dict(
    decode_head=dict(
        proposer=dict(
            _delete_=True,
            type='EigenSegmenter',
            features='colour',
            colour_weight=10.0,
            segments='clusters',
            long_side=112,
            patch_size=4,
        )
    )
)
