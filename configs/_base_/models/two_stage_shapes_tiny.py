# Masks first, names second, without any training: superpixels, named by the tiny CLIP
# that ships with the package. Where no mask lies, the dense CLIP decides.
_base_ = ['./clip_shapes_tiny.py']

superpixels = dict(type='SuperpixelProposer', num_segments=60, join_below=8.0)

model = dict(
    decode_head=dict(
        _delete_=True,
        type='ProposalHead',
        proposer=superpixels,
        region_classifier=dict(type='MaskPoolingClassifier'),
        output='log_mean',
        # Small masks lie on top of large ones.
        area_power=0.25,
        fallback=dict(type='DenseTextHead'),
    ),
)
