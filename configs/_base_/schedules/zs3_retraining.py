# Steps 2 and 3 of ZS3Net as its code takes them: generator and classifier learn in the
# same iterations, from the true layout of unseen classes, in one process of 8 images.
# A second step inherits from a first one as well, so these are values to take over.
zs3_batch_size = 8
zs3_model = dict(
    backbone=dict(init_cfg=None),
    decode_head=dict(loss_decode=dict(loss_weight=1 / zs3_batch_size)),
)
zs3_train_dataloader = dict(
    batch_size=zs3_batch_size,
    dataset=dict(setting='layout_oracle', unseen_policy='ignore'),
)
zs3_default_hooks = dict(checkpoint=dict(interval=5))
zs3_auto_scale_lr = dict(base_batch_size=zs3_batch_size)
zs3_hook = dict(
    type='GenerativeRetrainingHook',
    class_embeddings=dict(
        source=dict(
            type='vectors',
            path='data/word_vectors/GoogleNews-vectors-negative300.bin',
        ),
        normalize=False,
    ),
    setting='layout_oracle',
    loss=dict(type='MMDLoss', official=True),
    generator_step='class',
    decide_on='downsampled',
    reset_classifier='official',
    segmentor_mode='train',
)
find_unused_parameters = True
