# ZS3Net on a folder of your own with features of the shipped tiny CLIP, frozen: copy it
# and change the folder's name and the number of classes. own_folder_vitb16.py and, with
# no CLIP, own_folder_timm.py are for photographs. 1 process x 16 images.
_base_ = [
    '../_base_/models/zs3_clip_shapes_tiny.py',
    '../_base_/datasets/folder.py',
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
