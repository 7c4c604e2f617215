# Masks of a toy proposer, named by the shipped tiny CLIP; nothing is trained.
_base_ = './tiny_run.py'
custom_imports = dict(
    imports=['zs3_mmseg', 'tiny_run_parts', 'bright_bands'], allow_failed_imports=False
)
clip = dict(arch='zs3-shapes-tiny', pretrained='shapes')
model = dict(
    _delete_=True,
    type='ZeroShotEncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[64.0] * 3, bgr_to_rgb=True
    ),
    backbone=dict(type='OpenCLIPViT', **clip, last_attn='sclip', last_block='full'),
    decode_head=dict(
        type='ProposalHead',
        proposer=dict(type='BrightBands', bands=4),
        region_classifier=dict(type='MaskPoolingClassifier'),
    ),
    class_embeddings=dict(
        type='ClassEmbeddingBank', source=dict(type='clip_text', **clip)
    ),
    split=dict(
        name='squares', classes=['ground', 'square', 'stripe'], unseen=['stripe']
    ),
    setting='inductive',
    test_cfg=dict(mode='whole', crop_size=(16, 16), stride=(8, 8)),
)
custom_hooks = None
