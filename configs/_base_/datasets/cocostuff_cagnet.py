# COCO-Stuff 164k as CaGNet's code reads it: the pixel maps themselves, labels 0 to 181,
# of which eleven never occur.
_base_ = ['./zero_shot_512.py', './cagnet_pipelines.py']

split = 'cocostuff_167_15'
data_root = 'data/coco_stuff164k'
crop_size = _base_.cagnet_crop
train_pipeline = _base_.cagnet_train_pipeline
test_pipeline = _base_.cagnet_test_pipeline

# Without names of its own: labels are the split's classes.
maps = dict(
    type='BaseSegDataset',
    data_root=data_root,
    img_suffix='.jpg',
    seg_map_suffix='.png',
)
train_dataloader = dict(
    _base_.cagnet_train_loader,
    dataset=dict(
        split=split,
        dataset=dict(
            maps,
            data_prefix=dict(
                img_path='images/train2017', seg_map_path='pixelmaps/train2017'
            ),
            pipeline=_base_.cagnet_train_pipeline,
        ),
    ),
)
test_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            maps,
            data_prefix=dict(
                img_path='images/val2017', seg_map_path='pixelmaps/val2017'
            ),
        ),
        pipeline=_base_.cagnet_test_pipeline,
    )
)
val_dataloader = test_dataloader
