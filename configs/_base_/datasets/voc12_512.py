# PASCAL VOC 2012 with the masks of SBD: 20 classes, background ignored.
_base_ = ['./zero_shot_512.py']

split = 'voc12_15_5'
data_root = 'data/VOCdevkit/VOC2012'

# 1,464 images of VOC's own train list, and the 9,118 that only SBD has masks of.
train_set = dict(
    type='PascalVOCDataset',
    data_root=data_root,
    ann_file='ImageSets/Segmentation/train.txt',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    pipeline=_base_.train_pipeline,
)
aug_set = dict(
    type='PascalVOCDataset',
    data_root=data_root,
    ann_file='ImageSets/Segmentation/aug.txt',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
    pipeline=_base_.train_pipeline,
)
train_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(type='ConcatDataset', datasets=[train_set, aug_set]),
    )
)
test_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='PascalVOCDataset',
            data_root=data_root,
            ann_file='ImageSets/Segmentation/val.txt',
            data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ),
    )
)
val_dataloader = test_dataloader
