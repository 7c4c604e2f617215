# The images of CaGNet's code: warped to a square of 513 pixels, whatever their shape,
# then crops of 368. Tests are scored at the size of the label maps; the published
# numbers are those of evaluate_at='features'.
cagnet_crop = (368, 368)
cagnet_size = (513, 513)

cagnet_train_loader = dict(batch_size=8)
cagnet_train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=cagnet_size, keep_ratio=False),
    dict(
        type='RandomResize',
        scale=cagnet_size,
        ratio_range=(0.5, 1.5),
        keep_ratio=False,
    ),
    dict(type='RandomCrop', crop_size=cagnet_crop),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
cagnet_test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=cagnet_size, keep_ratio=False),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
