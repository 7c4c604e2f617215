# Superpixels, each named by what the tiny CLIP sees through it in its last blocks.
_base_ = ['./superpixel_clip_shapes_tiny.py']

model = dict(
    decode_head=dict(
        region_classifier=dict(
            _delete_=True,
            type='MaskAttentionClassifier',
            arch=_base_.arch,
            pretrained=_base_.pretrained,
        )
    )
)
