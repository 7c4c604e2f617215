# The evident intent of ESDA's code on folds as PASCAL-5i has them: only objects have
# names, the grounds of Shapes are background. (Three seen grounds are too few to learn
# what a fourth one is.) These are the things of shapes_a; benchmarks/shapes_folds.py
# has those of shapes_b and shapes_c, and the decoder as released, as well. 1 process x
# 8 pairs.
_base_ = ['./shapes_tiny_fixed.py', '../_base_/datasets/shapes_things.py']

split = dict(_delete_=True, **_base_.things)  # in the base it is a name
model = dict(split=split)
train_dataloader = dict(dataset=dict(split=split))
val_dataloader = dict(dataset=dict(split=split))
test_dataloader = dict(dataset=dict(split=split))
train_cfg = dict(max_iters=200, val_interval=200)
default_hooks = dict(checkpoint=dict(interval=100))
