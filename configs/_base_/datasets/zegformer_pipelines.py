# What ZegFormer's code does to images: values to take over, for crops of 512 pixels and
# the parts that do not depend on it. A crop that the image does not fill is filled up
# with grey before anything is normalised.
zegformer_crop = (512, 512)
zegformer_load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
zegformer_resize = dict(
    type='RandomChoiceResize',
    # Half to twice the crop, in tenths.
    scales=[int(zegformer_crop[0] * tenths / 10) for tenths in range(5, 21)],
    resize_type='ResizeShortestEdge',
    max_size=4 * zegformer_crop[0],
)
zegformer_colours = [
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
]
zegformer_fill = dict(img=128, seg=255)
