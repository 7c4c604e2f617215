# As fold 0, on fold 3. 1 GPU x 6 pairs.
_base_ = ['./coco20i_drn105_fold0.py']

split = 'coco20i_3'
model = dict(split=split)
train_dataloader = dict(dataset=dict(split=split))
val_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
