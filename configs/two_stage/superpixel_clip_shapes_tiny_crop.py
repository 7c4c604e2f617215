# Superpixels, each named by a picture of it that the tiny CLIP sees.
_base_ = ['./superpixel_clip_shapes_tiny.py']

model = dict(
    decode_head=dict(
        region_classifier=dict(
            _delete_=True,
            type='CropClassifier',
            arch=_base_.arch,
            pretrained=_base_.pretrained,
        )
    )
)
