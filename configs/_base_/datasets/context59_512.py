# Pascal-Context without background: 59 classes. The label maps are those of the 60
# classes; the split leaves background out by name, so no label is ever shifted.
_base_ = ['./context60_512.py']

split = 'context59_49_10'

train_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
val_dataloader = test_dataloader
