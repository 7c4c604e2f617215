# FSS-1000 as LSeg's two-word code reads it: 520 classes to train, each picture of the
# 240 test classes asked for once. Unpack it to data/FSS-1000.
_base_ = ['./fold_prompts.py', './lseg_fold_pipelines.py']

split = 'fss1000'
data_root = 'data/FSS-1000'

# Labels reach 1000: LoadAnnotations would cut them to 8 bits, and Pillow resizes no
# more. Masks are resized on their own, as the image has its size already.
train_pipeline = [
    *_base_.lseg_train_pipeline[:1],
    _base_.lseg_train_pipeline[2],
    dict(type='LoadFolderMasks'),
    dict(type='Resize', scale=_base_.lseg_size, keep_ratio=False),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    *train_pipeline[:3],
    dict(type='ScoreAtInputSize'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=_base_.lseg_batch_size,
    dataset=dict(
        split=split,
        held_out=None,
        unseen_policy='ignore',
        min_pixels=_base_.lseg_min_pixels,
        dataset=dict(
            type='FSS1000Dataset',
            data_root=data_root,
            subset='trn',
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        split=split,
        held_out=None,
        min_pixels=_base_.lseg_min_pixels,
        dataset=dict(
            type='FSS1000Dataset',
            data_root=data_root,
            subset='val',
            pipeline=test_pipeline,
        ),
    )
)
test_dataloader = dict(
    dataset=dict(
        split=split,
        sampling='exhaustive',
        min_pixels=_base_.lseg_min_pixels,
        pipeline=test_pipeline,
        dataset=dict(type='FSS1000Dataset', data_root=data_root, subset='test'),
    )
)
# Neither class of training nor of the test is in the pictures of validation.
val_evaluator = dict(absent='nan')
