# The images of ZS3Net's code: resized as PIL does it, crops of 312 pixels. The short
# side becomes 156 to 624 pixels; what a crop lacks is black and has no label. Tests
# have a short side of 513 pixels. The official code resizes the label maps of the test
# as well; here they keep their size, as everywhere in mmseg.
zs3_crop = (312, 312)
zs3_uncapped = 2**20

# A last batch of a single image would stop batch norm behind the image pooling.
zs3_train_loader = dict(drop_last=True, sampler=dict(type='EpochDrawSampler'))
# Classes without a pixel count as 0, as in the official code.
zs3_evaluator = dict(absent='zero')

zs3_train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomResize',
        scale=(zs3_uncapped, zs3_crop[0]),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
        backend='pillow',
    ),
    dict(type='RandomCrop', crop_size=zs3_crop),
    # Before the normalisation, which turns black into something else than 0.
    dict(type='Pad', size=zs3_crop, pad_val=dict(img=0, seg=255)),
    dict(type='RandomRadiusBlur', prob=0.5, max_radius=1.0),
    dict(type='PackSegInputs'),
]
zs3_test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(zs3_uncapped, 513), keep_ratio=True, backend='pillow'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
