# PASCAL-5i: VOC 2012 with SBD masks, in folds of five classes. Prepare it with
# `python tools/prepare_data.py voc12`.
_base_ = ['./fold_prompts.py']

split = 'pascal5i_0'
size = 480
data_root = 'data/VOCdevkit/VOC2012'

train_pipeline = [
    *_base_.load,
    *_base_.changes,
    dict(type='ForegroundCrop', size=(size, size), pad_val=_base_.mean_bgr),
    *_base_.pack,
]
# The label map keeps its size: scores are brought back to it.
test_pipeline = [
    _base_.load[0],
    dict(type='LetterboxResize', size=size),
    _base_.load[1],
    *_base_.pack,
]

train_parts = [
    dict(
        type='PascalVOCDataset',
        data_root=data_root,
        ann_file=f'ImageSets/Segmentation/{part}.txt',
        data_prefix=dict(img_path='JPEGImages', seg_map_path=masks),
    )
    for part, masks in (
        ('train', 'SegmentationClass'),
        ('aug', 'SegmentationClassAug'),
    )
]
train_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='ConcatDataset',
            datasets=[dict(**part, pipeline=train_pipeline) for part in train_parts],
        ),
    )
)
val_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='ConcatDataset',
            datasets=[dict(**part, pipeline=test_pipeline) for part in train_parts],
        ),
    )
)
test_dataloader = dict(
    dataset=dict(
        split=split,
        pipeline=test_pipeline,
        dataset=dict(
            type='PascalVOCDataset',
            data_root=data_root,
            ann_file='ImageSets/Segmentation/val.txt',
            data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ),
    )
)
