# ZegFormer's recipe: AdamW, the backbone at a tenth of the rate, gradients of the whole
# model cut to length 0.01. Norms and places of queries do not decay. Made for 8 GPUs x
# 4 images.
_base_ = ['../default_runtime.py']

max_iters = 60000

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'query_embed': dict(decay_mult=0.0),
        },
    ),
    clip_grad=dict(max_norm=0.01, norm_type=2),
)
# Its end follows train_cfg.max_iters.
param_scheduler = [dict(type='WarmupPolyLR', power=0.9, eta_min=0.0, by_epoch=False)]
# As in the official code, losses are those of the batch of each process.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters // 12))
auto_scale_lr = dict(base_batch_size=32)
