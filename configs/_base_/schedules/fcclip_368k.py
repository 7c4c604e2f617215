# FC-CLIP's recipe: AdamW, one rate, two steps near the end; gradients of the whole
# model cut to length 0.01. Norms and learned embeddings do not decay, but for the
# levels of the pixel decoder and the scale. Made for 8 GPUs x 2 images.
_base_ = ['../default_runtime.py']

max_iters = 368750

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            'query_feat': dict(decay_mult=0.0),
            'query_embed': dict(decay_mult=0.0),
            'query_decoder.level_embed': dict(decay_mult=0.0),
            'no_object': dict(decay_mult=0.0),
        },
    ),
    clip_grad=dict(max_norm=0.01, norm_type=2),
)
# The warm-up of the released file begins at the full rate.
param_scheduler = [
    dict(type='MultiStepLR', milestones=[327778, 355092], gamma=0.1, by_epoch=False)
]
# As in the official code, losses are those of the batch of each process.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters // 50))
