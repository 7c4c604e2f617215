# COCO 2017 with a mask for each thing and each ground, as FC-CLIP's code reads it: 133
# classes, 118,287 training and 5,000 test images. Folders are those of MMDetection.
_base_ = ['./zero_shot_512.py', './fcclip_pipelines.py']

split = 'fcclip_coco_133'
setting = 'supervised'
data_root = 'data/coco'
load = dict(type='LoadPanopticAnnotations')

crop_size = _base_.fcclip_crop
train_pipeline = [
    _base_.fcclip_train[0],
    load,
    *_base_.fcclip_train[2:-1],
    dict(type='PackPanopticInputs'),
]
test_pipeline = [*_base_.fcclip_test[:-2], load, _base_.fcclip_test[-1]]

train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        split=split,
        setting=setting,
        dataset=dict(
            type='COCOPanopticDataset',
            data_root=data_root,
            ann_file='annotations/panoptic_train2017.json',
            data_prefix=dict(
                img_path='train2017', seg_map_path='annotations/panoptic_train2017'
            ),
            pipeline=train_pipeline,
        ),
    ),
)
test_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='COCOPanopticDataset',
            data_root=data_root,
            ann_file='annotations/panoptic_val2017.json',
            data_prefix=dict(
                img_path='val2017', seg_map_path='annotations/panoptic_val2017'
            ),
        ),
        pipeline=test_pipeline,
    )
)
val_dataloader = test_dataloader
