# ZS3Net on a folder of your own photographs without any CLIP: frozen ImageNet features
# of timm, and word vectors of the class names. Copy it and change the folder's name,
# the number of classes and the file of vectors; docs/user_guides/street_photographs.md
# takes you there. 1 process x 4 images.
_base_ = [
    '../_base_/models/zs3_timm.py',
    '../_base_/datasets/folder_512.py',
    '../_base_/schedules/zs3_700.py',
    '../_base_/default_runtime.py',
]

word_vectors = dict(type='vectors', path='data/word_vectors/glove.6B.300d.txt')
custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(
        _base_.zs3_steps,
        class_embeddings=dict(source=word_vectors),
        unseen_weight=10.0,
    ),
]
# The end of the first step, which is the segmentor alone, is kept.
default_hooks = dict(checkpoint=dict(interval=_base_.segmentor_iters))
