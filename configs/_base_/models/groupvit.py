# GroupViT through transformers (the extra [masks]), with its own text tower; nothing is
# trained. The weights are those of the hub, downloaded on first use, with a licence for
# non-commercial use. Without a network give a folder as model.backbone.weights and
# model.class_embeddings.source.weights.
weights = 'nvidia/groupvit-gcc-yfcc'
# Of images, as in the released code.
short_side = 448

model = dict(
    type='ZeroShotEncoderDecoder',
    setting='inductive',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=16,
    ),
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='groupvit_text', weights=weights),
        templates='imagenet',
    ),
    backbone=dict(type='GroupViTBackbone', weights=weights),
    decode_head=dict(type='GroupTokenHead', top_k=5),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
