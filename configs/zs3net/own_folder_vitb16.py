# ZS3Net on a folder of your own photographs with features of OpenAI's ViT-B/16, frozen:
# copy it and change the folder's name and the number of classes. 1 GPU x 4 images.
_base_ = [
    '../_base_/models/zs3_clip_vitb16.py',
    '../_base_/datasets/folder_512.py',
    '../_base_/schedules/zs3_700.py',
    '../_base_/default_runtime.py',
]

rows = dict(type='clip_text', arch=_base_.arch, pretrained=_base_.pretrained)
custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(
        _base_.zs3_steps,
        class_embeddings=dict(source=rows, templates='zegclip'),
    ),
]
# The end of the first step, which is the segmentor alone, is kept.
default_hooks = dict(checkpoint=dict(interval=_base_.segmentor_iters))
