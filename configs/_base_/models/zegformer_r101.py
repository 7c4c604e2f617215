# ZegFormer with a ResNet-101, the network of the paper's main results.
_base_ = ['./zegformer_r50.py']

model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101'))
)
