# ZS3Net on features of frozen CLIP: the generator maps text embeddings to features that
# CLIP's image tower makes. A test needs no text. 1 process x 16 images.
_base_ = ['./shapes_clip_baseline.py', '../_base_/schedules/zs3_shapes.py']

segmentor_iters = _base_.max_iters
generator_iters = 240
classifier_iters = 160

custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(
        _base_.zs3_hook,
        class_embeddings=dict(
            source=dict(
                type='clip_text', arch=_base_.arch, pretrained=_base_.pretrained
            ),
            templates='zegclip',  # means over 15 sentences
        ),
        segmentor_iters=segmentor_iters,
        generator_iters=generator_iters,
        unseen_weight=5.0,
    ),
]
param_scheduler = [
    _base_.zs3_warmup,
    dict(_base_.zs3_fall, end=segmentor_iters),
    dict(_base_.zs3_rise, milestones=[segmentor_iters + generator_iters]),
]
max_iters = segmentor_iters + generator_iters + classifier_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
