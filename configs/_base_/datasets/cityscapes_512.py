# Cityscapes' 19 classes, for testing a segmentor that was trained elsewhere.
_base_ = ['./zero_shot_512.py']

split = 'cityscapes_19'
data_root = 'data/cityscapes'

train_dataloader = None
test_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='CityscapesDataset',
            data_root=data_root,
            data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        ),
    )
)
val_dataloader = test_dataloader
