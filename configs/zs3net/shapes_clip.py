# ZS3Net on features of frozen CLIP: the generator maps text embeddings to features that
# CLIP's image tower makes. A test needs no text. 1 process x 16 images.
_base_ = ['./shapes_clip_baseline.py']

segmentor_iters = _base_.max_iters
generator_iters = 240
classifier_iters = 160

custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(
        type='GenerativeRetrainingHook',
        class_embeddings=dict(
            source=dict(
                type='clip_text', arch=_base_.arch, pretrained=_base_.pretrained
            ),
            templates='zegclip',  # means over 15 sentences
        ),
        segmentor_iters=segmentor_iters,
        generator_iters=generator_iters,
        # Ten times the published rate: the generator has hundreds of steps, not
        # tens of thousands.
        generator_optimizer=dict(type='Adam', lr=2e-3),
        loss=dict(type='MMDLoss', relative=True, bandwidths=[0.125, 0.25, 0.5, 1, 2]),
        layout=dict(kind='seen', image_share=0.5, unseen_share=0.3),
        unseen_weight=5.0,
    ),
]
# As in shapes_convnet.py.
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
