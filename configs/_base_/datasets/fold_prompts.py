# What the fold protocols share: an image and one name, with the augmentation and the
# test resize of the few-shot codes (BAM, ESDA). A data set adds its crop and its files.
_base_ = ['./prompt_changes.py']

dataset_type = 'ClassPromptDataset'
# Every so many training images are kept out of training, and a checkpoint is chosen on
# them by the classes of the training. ESDA's code chooses on the novel classes instead:
# see configs/esda/README.md.
held_out_every = 20

load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]

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
