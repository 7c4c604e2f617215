# What LSeg's two-word code does to the images of a fold: image and mask are squashed to
# a square of 480 pixels, in training and in the test, and scored there. Unseen objects
# in training images stay, as "others". Values to take over: the files are those of the
# fold's own data set.
lseg_size = (480, 480)
lseg_train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=lseg_size, keep_ratio=False, backend='pillow'),
    dict(type='PackSegInputs'),
]
lseg_test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=lseg_size, keep_ratio=False, backend='pillow'),
    dict(type='ScoreAtInputSize', backend='pillow'),
    dict(type='PackSegInputs'),
]
# Any object counts, however small.
lseg_min_pixels = 0
lseg_batch_size = 40
