# SAZS's other network: DRN-D-105 with a pyramid of pooled maps.
_base_ = ['./sazs_vitl16.py']

model = dict(
    backbone=dict(_delete_=True, type='PyramidDRN', dropout_ratio=0.95),
    # Whole steps of the network: every 8th label is where its pixel is.
    data_preprocessor=dict(size_divisor=8, test_cfg=dict(size_divisor=8)),
)
