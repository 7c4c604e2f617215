# The baseline of ZS3Net's paper after DeViSE: the same network, each pixel drawn to
# the vector of its class by 1 - cosine. 1 process x 16 images.
_base_ = ['./shapes_convnet_baseline.py']

model = dict(
    type='ZeroShotEncoderDecoder',
    split=_base_.split,
    setting='inductive',
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='clip_text', arch='zs3-shapes-tiny', pretrained='shapes'),
    ),
    decode_head=dict(
        _delete_=True,
        type='CosineRegressionHead',
        in_index=3,
        in_channels=32,
        embed_dim=128,
    ),
)
