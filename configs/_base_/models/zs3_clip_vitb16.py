# A linear classifier on OpenAI's ViT-B/16, frozen. The weights are open_clip's tag
# 'openai', which is downloaded on first use. Without a network, fetch ViT-B-16.pt and
# give its path as model.backbone.pretrained.
_base_ = ['./zs3_clip_shapes_tiny.py']

arch = 'ViT-B-16-quickgelu'
pretrained = 'openai'

model = dict(
    data_preprocessor=dict(size_divisor=16),
    backbone=dict(
        arch=arch, pretrained=pretrained, last_attn='naclip', last_block=None
    ),
    decode_head=dict(in_channels=512, channels=512),
)
