# The 80 object classes of COCO 2014 as label maps, in the folds of COCO-20i. Background
# is label 0 of the maps and no class of the split.
_base_ = ['./zero_shot_512.py']

split = 'coco20i_0'
data_root = 'data/coco2014'

train_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='COCOObjectsDataset',
            data_root=data_root,
            data_prefix=dict(
                img_path='images/train2014', seg_map_path='annotations/train2014'
            ),
            pipeline=_base_.train_pipeline,
        ),
    )
)
test_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='COCOObjectsDataset',
            data_root=data_root,
            data_prefix=dict(
                img_path='images/val2014', seg_map_path='annotations/val2014'
            ),
        ),
    )
)
val_dataloader = test_dataloader
