# ADE20K's 150 classes under the names of FC-CLIP's list, to test what was trained
# elsewhere. A data set without names of its own has the labels of the split.
_base_ = ['./zero_shot_512.py', './fcclip_pipelines.py']

split = 'fcclip_ade20k_150'
test_pipeline = _base_.fcclip_test

test_dataloader = dict(
    dataset=dict(
        split=split,
        dataset=dict(
            type='BaseSegDataset',
            data_root='data/ade/ADEChallengeData2016',
            data_prefix=dict(
                img_path='images/validation', seg_map_path='annotations/validation'
            ),
            # Label 0 is what is no class.
            reduce_zero_label=True,
        ),
        pipeline=test_pipeline,
    )
)
