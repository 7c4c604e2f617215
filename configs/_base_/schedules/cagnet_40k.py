# The three optimisers of CaGNet's code in joint training, for PASCAL VOC 2012.
_base_ = ['../default_runtime.py']

max_iters = 40000
decay_start = 10000

optim_wrapper = dict(
    constructor='PartsOptimWrapperConstructor',
    segmentor=dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=2.5e-4, momentum=0.9, weight_decay=5e-4),
        paramwise_cfg=dict(
            custom_keys={
                'context': dict(lr_mult=5.0),
                'pyramid': dict(lr_mult=10.0),
                **{
                    f'pyramid.{layer}.bias': dict(lr_mult=20.0, decay_mult=0.0)
                    for layer in range(4)
                },
            }
        ),
    ),
    classifier=dict(
        type='OptimWrapper',
        optimizer=dict(type='Adam', lr=2.5e-4, weight_decay=5e-4),
    ),
    generator=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=2e-4)),
)
# Their factor is 1 before the start and gamma^(1 + passed steps) from it on.
steps = dict(
    type='MultiStepLR',
    milestones=list(range(decay_start, max_iters, 5000)),
    gamma=0.71,
    by_epoch=False,
)
param_scheduler = dict(
    segmentor=[
        dict(type='WarmupPolyLR', power=0.9, update_interval=10, by_epoch=False)
    ],
    classifier=[steps],
    generator=[steps],
)
# As in the official code, losses are those of the batch of each process.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=2000, max_keep_ckpts=2))
auto_scale_lr = dict(base_batch_size=8)
