# ZS3Net in one run: the segmentor learns the seen classes, then a generator its
# features, then the classifier all classes. No CLIP at test time; the class vectors
# are text embeddings of the names. 1 process x 16 images.
_base_ = ['./shapes_convnet_baseline.py']

segmentor_iters = 1600
generator_iters = 400
classifier_iters = 400

custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(
        type='GenerativeRetrainingHook',
        class_embeddings=dict(
            source=dict(type='clip_text', arch='zs3-shapes-tiny', pretrained='shapes'),
        ),
        segmentor_iters=segmentor_iters,
        generator_iters=generator_iters,
        # Ten times the published rate: the generator has hundreds of steps, not
        # tens of thousands.
        generator_optimizer=dict(type='Adam', lr=2e-3),
        # Features of this network are no 256 numbers of unit scale, as the published
        # bandwidths expect: these are multiples of their own mean squared distance.
        loss=dict(type='MMDLoss', relative=True, bandwidths=[0.125, 0.25, 0.5, 1, 2]),
        merge='pixel',
        layout=dict(kind='seen', image_share=0.5, unseen_share=0.3),
        unseen_weight=1.0,
    ),
]
# The segmentor's learning rate falls as in the baseline, to a hundredth instead of 0,
# so that it can be raised again for the classifier.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        begin=20,
        end=segmentor_iters,
        eta_min_ratio=0.01,
        by_epoch=False,
    ),
    dict(
        type='MultiStepLR',
        milestones=[segmentor_iters + generator_iters],
        gamma=100,
        by_epoch=False,
    ),
]
max_iters = segmentor_iters + generator_iters + classifier_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
