# ZS3Net's three steps in one run on frozen features: 300 iterations for the head, 240
# for the generator, 160 for the classifier of all classes.
_base_ = ['./schedule_320.py', './zs3_shapes.py']

segmentor_iters = 300
generator_iters = 240
classifier_iters = 160

# A config adds class_embeddings.
zs3_steps = dict(
    _base_.zs3_hook,
    segmentor_iters=segmentor_iters,
    generator_iters=generator_iters,
    unseen_weight=5.0,
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    _base_.zs3_warmup,
    dict(_base_.zs3_fall, end=segmentor_iters),
    dict(_base_.zs3_rise, milestones=[segmentor_iters + generator_iters]),
]
max_iters = segmentor_iters + generator_iters + classifier_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
