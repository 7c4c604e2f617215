# ADE20K's 150 classes, none of them unseen: for supervised training, and for testing a
# segmentor that was trained elsewhere.
_base_ = ['./zero_shot_512.py']

split = 'ade20k_150'
setting = 'supervised'
data_root = 'data/ade/ADEChallengeData2016'

train_dataloader = dict(
    dataset=dict(
        split=split,
        setting=setting,
        dataset=dict(
            type='ADE20KDataset',
            data_root=data_root,
            data_prefix=dict(
                img_path='images/training', seg_map_path='annotations/training'
            ),
            pipeline=_base_.train_pipeline,
        ),
    )
)
test_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='ADE20KDataset',
            data_root=data_root,
            data_prefix=dict(
                img_path='images/validation', seg_map_path='annotations/validation'
            ),
        ),
    )
)
val_dataloader = test_dataloader
