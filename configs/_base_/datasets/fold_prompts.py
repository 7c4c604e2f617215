# What the fold protocols share: an image and one name, with the augmentation and the
# test resize of the few-shot codes (BAM, ESDA). A data set adds its crop and its files.
mean_bgr = [103.53, 116.28, 123.675]
dataset_type = 'ClassPromptDataset'
# Every so many training images are kept out of training, and a checkpoint is chosen on
# them by the classes of the training. ESDA's code chooses on the novel classes instead:
# see configs/esda/README.md.
held_out_every = 20

load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
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

train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='EpochDrawSampler'),
    dataset=dict(
        type=dataset_type,
        phase='train',
        held_out=dict(every=held_out_every, part='rest'),
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, phase='test'),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        phase='test',
        selection='held_out',
        unseen_policy='drop_image',
        sampling='exhaustive',
        held_out=dict(every=held_out_every, part='held_out'),
    ),
)
val_evaluator = dict(type='FoldIoUMetric')
test_evaluator = val_evaluator
