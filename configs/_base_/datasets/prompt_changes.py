# The augmentation of the few-shot codes (BAM, ESDA), and what is handed on of an image
# that a letterbox may have brought to its size.
mean_bgr = [103.53, 116.28, 123.675]
changes = [
    dict(type='RandomRescale', ratio_range=(0.9, 1.1)),
    dict(type='RandomRotate', prob=0.5, degree=10, pad_val=mean_bgr, seg_pad_val=255),
    dict(type='RandomGaussianBlur', prob=0.5, kernel_size=5),
    dict(type='RandomFlip', prob=0.5),
]
pack = [
    dict(
        type='PackSegInputs',
        meta_keys=(
            'img_path',
            'seg_map_path',
            'ori_shape',
            'img_shape',
            'pad_shape',
            'scale_factor',
            'flip',
            'flip_direction',
            'canvas_shape',
        ),
    )
]
