# Pascal-Context's 59 classes under the names of FC-CLIP's list, to test what was
# trained elsewhere. A data set without names of its own has the labels of the split.
_base_ = ['./context59_fcclip.py']

split = 'fcclip_context_59'

test_dataloader = dict(
    dataset=dict(
        split=split,
        # Label 0 is what is no class.
        dataset=dict(type='BaseSegDataset', reduce_zero_label=True),
    )
)
