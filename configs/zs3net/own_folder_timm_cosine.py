# The baseline of ZS3Net's paper after DeViSE on the features of own_folder_timm.py: a
# linear map draws each pixel to the word vector of its class. 1 process x 4 images.
_base_ = ['./own_folder_timm.py']

max_iters = _base_.segmentor_iters
model = dict(
    type='ZeroShotEncoderDecoder',
    split=_base_.split,
    setting='inductive',
    class_embeddings=dict(type='ClassEmbeddingBank', source=_base_.word_vectors),
    decode_head=dict(
        _delete_=True,
        type='CosineRegressionHead',
        in_index=_base_.model.decode_head.in_index,
        input_transform=_base_.model.decode_head.input_transform,
        in_channels=_base_.model.decode_head.in_channels,
        embed_dim=300,
    ),
)
custom_hooks = [dict(type='ProtocolCheckHook')]
param_scheduler = _base_.param_scheduler[:2]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
