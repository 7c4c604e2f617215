# As fold 0, on fold 1. 1 GPU x 6 pairs.
_base_ = ['./pascal5i_drn105_fold0.py']

split = 'pascal5i_1'
model = dict(split=split)
train_dataloader = dict(dataset=dict(split=split))
val_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
