# Pascal-Context's 59 classes under the names of FC-CLIP's list, to test what was
# trained elsewhere. A data set without names of its own has the labels of the split.
_base_ = ['./zero_shot_512.py', './fcclip_pipelines.py']

split = 'fcclip_context_59'
test_pipeline = _base_.fcclip_test

test_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='BaseSegDataset',
            data_root='data/VOCdevkit/VOC2010',
            ann_file='ImageSets/SegmentationContext/val.txt',
            data_prefix=dict(
                img_path='JPEGImages', seg_map_path='SegmentationClassContext'
            ),
            # Label 0 is what is no class.
            reduce_zero_label=True,
        ),
        pipeline=test_pipeline,
    )
)
