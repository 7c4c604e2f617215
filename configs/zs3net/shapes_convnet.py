# ZS3Net in one run: the segmentor learns the seen classes, then a generator its
# features, then the classifier all classes. No CLIP at test time; the class vectors
# are text embeddings of the names. 1 process x 16 images.
_base_ = ['./shapes_convnet_baseline.py', '../_base_/schedules/zs3_shapes.py']

segmentor_iters = 1600
generator_iters = 400
classifier_iters = 400

custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(
        _base_.zs3_hook,
        class_embeddings=dict(
            source=dict(type='clip_text', arch='zs3-shapes-tiny', pretrained='shapes'),
        ),
        segmentor_iters=segmentor_iters,
        generator_iters=generator_iters,
        merge='pixel',
        unseen_weight=1.0,
    ),
]
param_scheduler = [
    _base_.zs3_warmup,
    dict(_base_.zs3_fall, end=segmentor_iters),
    dict(_base_.zs3_rise, milestones=[segmentor_iters + generator_iters]),
]
max_iters = segmentor_iters + generator_iters + classifier_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
