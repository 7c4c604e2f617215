# LSeg's two-word network on folds as PASCAL-5i has them: only objects have names, the
# grounds of Shapes are background. 1 process x 8 pairs.
_base_ = ['./shapes_tiny_fold.py', '../_base_/datasets/shapes_things.py']

split = dict(_delete_=True, **_base_.things)  # in the base it is a name
model = dict(split=split)
train_dataloader = dict(dataset=dict(split=split))
val_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
