# ADE20K's 150 classes under the names of FC-CLIP's list, to test what was trained
# elsewhere. A data set without names of its own has the labels of the split.
_base_ = ['./ade20k_512.py', './fcclip_pipelines.py']

split = 'fcclip_ade20k_150'
test_pipeline = _base_.fcclip_test

test_dataloader = dict(
    dataset=dict(
        split=split,
        # Label 0 is what is no class.
        dataset=dict(type='BaseSegDataset', reduce_zero_label=True),
        pipeline=test_pipeline,
    )
)
