# COCO-20i: the objects of COCO 2014, in folds of twenty classes. Prepare it with
# `python tools/prepare_data.py coco20i`.
_base_ = ['./fold_prompts.py']

split = 'coco20i_0'
size = 352
data_root = 'data/coco2014'

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

train_files = dict(
    type='COCOObjectsDataset',
    data_root=data_root,
    data_prefix=dict(img_path='images/train2014', seg_map_path='annotations/train2014'),
)
train_dataloader = dict(
    batch_size=32,
    dataset=dict(split=split, dataset=dict(**train_files, pipeline=train_pipeline)),
)
val_dataloader = dict(
    dataset=dict(split=split, dataset=dict(**train_files, pipeline=test_pipeline))
)
test_dataloader = dict(
    dataset=dict(
        split=split,
        pipeline=test_pipeline,
        dataset=dict(
            type='COCOObjectsDataset',
            data_root=data_root,
            data_prefix=dict(
                img_path='images/val2014', seg_map_path='annotations/val2014'
            ),
        ),
    )
)
