# ZS3Net's three steps in one run on Shapes. When they begin and end depends on the
# model, so these are values to take over.
zs3_hook = dict(
    type='GenerativeRetrainingHook',
    # Ten times the published rate: the generator has hundreds of steps, not tens of
    # thousands.
    generator_optimizer=dict(type='Adam', lr=2e-3),
    # Features here are no 256 numbers of unit scale, as the published bandwidths
    # expect: these are multiples of their own mean squared distance.
    loss=dict(type='MMDLoss', relative=True, bandwidths=[0.125, 0.25, 0.5, 1, 2]),
    layout=dict(kind='seen', image_share=0.5, unseen_share=0.3),
)
# The segmentor's learning rate falls as in the baseline, to a hundredth instead of 0,
# so that it can be raised again for the classifier.
zs3_warmup = dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False)
zs3_fall = dict(type='CosineAnnealingLR', begin=20, eta_min_ratio=0.01, by_epoch=False)
zs3_rise = dict(type='MultiStepLR', gamma=100, by_epoch=False)
