# The same with the small SAM 2.1, and a second look at a picture of each mask.
_base_ = ['./sam_clip_photo_vitb16.py']

model = dict(
    decode_head=dict(
        proposer=dict(weights='facebook/sam2.1-hiera-small'),
        region_classifier=dict(
            _delete_=True,
            type='CropClassifier',
            arch=_base_.arch,
            pretrained=_base_.pretrained,
            style='crop',
            expand=1.2,
        ),
    )
)
