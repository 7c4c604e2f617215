# Transductive: pixels that are known to be unseen must be of some unseen class (QFSL),
# on the linear head of baselines/shapes_tiny_linear.py. 1 process x 16 images.
_base_ = ['../baselines/shapes_tiny_linear.py']

model = dict(
    setting='transductive', unlabelled_loss=dict(type='QFSLLoss', loss_weight=0.1)
)
train_dataloader = dict(dataset=dict(setting='transductive'))
