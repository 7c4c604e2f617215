# ZegCLIP on Shapes with the labels of all classes: the upper bound.
# 1 process x 16 images.
_base_ = ['./shapes_tiny.py']

model = dict(setting='supervised')
train_dataloader = dict(dataset=dict(setting='supervised'))
