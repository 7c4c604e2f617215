# COCO-Stuff 164k: 171 classes, 118,287 training and 5,000 test images.
_base_ = ['./zero_shot_512.py']

split = 'cocostuff_156_15'
data_root = 'data/coco_stuff164k'

train_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='COCOStuffDataset',
            data_root=data_root,
            data_prefix=dict(
                img_path='images/train2017', seg_map_path='annotations/train2017'
            ),
            pipeline=_base_.train_pipeline,
        ),
    )
)
test_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='COCOStuffDataset',
            data_root=data_root,
            data_prefix=dict(
                img_path='images/val2017', seg_map_path='annotations/val2017'
            ),
        ),
    )
)
val_dataloader = test_dataloader
