# Pascal-Context with background as a seen class: 60 classes, as in ZS3Net.
_base_ = ['./zero_shot_512.py']

split = 'context_zs3_10'
data_root = 'data/VOCdevkit/VOC2010'

data_prefix = dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext')
train_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='PascalContextDataset',
            data_root=data_root,
            ann_file='ImageSets/SegmentationContext/train.txt',
            data_prefix=data_prefix,
            pipeline=_base_.train_pipeline,
        ),
    )
)
test_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='PascalContextDataset',
            data_root=data_root,
            ann_file='ImageSets/SegmentationContext/val.txt',
            data_prefix=data_prefix,
        ),
    )
)
val_dataloader = test_dataloader
