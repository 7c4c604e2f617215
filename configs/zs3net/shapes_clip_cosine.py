# The baseline of ZS3Net's paper after DeViSE on the features of shapes_clip.py: a
# linear map draws each pixel to the vector of its class. 1 process x 16 images.
_base_ = ['./shapes_clip_baseline.py']

model = dict(
    type='ZeroShotEncoderDecoder',
    split=_base_.split,
    setting='inductive',
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='clip_text', arch=_base_.arch, pretrained=_base_.pretrained),
    ),
    decode_head=dict(
        _delete_=True,
        type='CosineRegressionHead',
        in_index=0,
        in_channels=128,
        embed_dim=128,
    ),
)
