# Pascal-Context with the 33 classes of CaGNet's release: its label maps, 1 to 33 and 0
# for the rest, are not those of mmseg's 59 or 60 classes.
_base_ = ['./zero_shot_512.py', './cagnet_pipelines.py']

split = 'cagnet_context33'
data_root = 'data/context33'
crop_size = _base_.cagnet_crop
train_pipeline = _base_.cagnet_train_pipeline
test_pipeline = _base_.cagnet_test_pipeline

# Without names of its own: labels less 1 are the split's classes.
maps = dict(
    type='BaseSegDataset',
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='labels'),
    img_suffix='.jpg',
    seg_map_suffix='.png',
    reduce_zero_label=True,
)
train_dataloader = dict(
    _base_.cagnet_train_loader,
    dataset=dict(
        split=split,
        dataset=dict(maps, ann_file='train.txt', pipeline=_base_.cagnet_train_pipeline),
    ),
)
test_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(maps, ann_file='test.txt'),
        pipeline=_base_.cagnet_test_pipeline,
    )
)
val_dataloader = test_dataloader
