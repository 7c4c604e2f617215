# What FC-CLIP's code does to images: values to take over. Scaled to 0.1 to 2 times the
# crop, which is then filled up with grey before anything is normalised.
fcclip_crop = (1024, 1024)
fcclip_train = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomResize',
        scale=fcclip_crop,
        ratio_range=(0.1, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=fcclip_crop),
    dict(type='Pad', size=fcclip_crop, pad_val=dict(img=128, seg=255)),
    dict(type='PackSegInputs'),
]
fcclip_test_resize = dict(type='ResizeShortestEdge', scale=800, max_size=1333)
fcclip_test = [
    dict(type='LoadImageFromFile'),
    fcclip_test_resize,
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
