# LSeg: ViT-L/16 of ImageNet, decoder of DPT, and the text rows of OpenAI's ViT-B/32,
# whose image tower has no part in it. Bare words, no sentences.
#
# The weights of the ViT are timm's, those of the text tower open_clip's tag 'openai';
# both are downloaded on first use. Without a network, give the paths of the files as
# model.backbone.pretrained and model.class_embeddings.source.pretrained. On several
# GPUs set model.decode_head.norm_cfg.type=SyncBN, as the official code has it.
divisor = 32

model = dict(
    type='ZeroShotEncoderDecoder',
    setting='inductive',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        # The decoder joins maps down to this stride.
        size_divisor=divisor,
        test_cfg=dict(size_divisor=divisor),
    ),
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='clip_text', arch='ViT-B-32-quickgelu', pretrained='openai'),
        templates='bare',
    ),
    backbone=dict(
        type='TimmViT',
        model='vit_large_patch16_384',
        pretrained=True,
        out_indices=(5, 11, 17, 23),
    ),
    decode_head=dict(
        type='LSegHead',
        in_channels=[1024, 1024, 1024, 1024],
        in_index=[0, 1, 2, 3],
        post_process_channels=[256, 512, 1024, 1024],
        channels=256,
        norm_cfg=dict(type='BN'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
