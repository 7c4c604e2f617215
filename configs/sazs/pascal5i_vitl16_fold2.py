# As fold 0, on fold 2. 1 GPU x 6 pairs.
_base_ = ['./pascal5i_vitl16_fold0.py']

split = 'pascal5i_2'
model = dict(split=split)
train_dataloader = dict(dataset=dict(split=split))
val_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
