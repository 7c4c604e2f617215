# OpenSeg's decoders on OpenAI's frozen ViT-B/16, which is ours: the published networks
# are convolutional and trained as a whole. Pixel embeddings begin as the dense features
# of CLIP.
#
# The weights are open_clip's tag 'openai', which is downloaded on first use. Without a
# network, fetch ViT-B-16.pt and give its path as model.backbone.pretrained and
# model.class_embeddings.source.pretrained.
_base_ = ['./clip_vitb16.py']

width = 768

model = dict(
    # The last one is in the space of the texts.
    backbone=dict(out_indices=(3, 5, 7, 11, -1)),
    decode_head=dict(
        _delete_=True, type='OpenSegHead', in_channels=[width] * 4, text_index=-1
    ),
    test_cfg=dict(_delete_=True, mode='whole'),
)
