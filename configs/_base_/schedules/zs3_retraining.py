# Steps 2 and 3 of ZS3Net as its code takes them: generator and classifier learn in the
# same iterations, from the true layout of unseen classes, in one process of 8 images.
zs3_batch_size = 8
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
