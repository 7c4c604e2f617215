# SAM 3 through transformers (the extra [masks]), prompted with names; nothing is
# trained. The weights are those of the hub, which gives access to them on request, with
# a licence of their own. Without a network give a folder as model.backbone.weights,
# model.decode_head.weights and model.class_embeddings.source.weights.
weights = 'facebook/sam3'
# Of images, which are stretched to it.
side = 1008

model = dict(
    type='ZeroShotEncoderDecoder',
    setting='inductive',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[127.5] * 3,
        std=[127.5] * 3,
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='sam3_text', weights=weights),
        normalize=False,
        token_features=True,
    ),
    backbone=dict(type='SAM3Backbone', weights=weights),
    decode_head=dict(type='SAM3Head', weights=weights),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
