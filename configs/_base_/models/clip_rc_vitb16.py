# CLIP-RC on OpenAI's ViT-B/16 at 512 pixels, as published: one region token for each 8
# x 8 of the 32 x 32 patches, which starts as the class token and stays so, because the
# released configs train what is named a prompt alone (trainable=True is the other way).
_base_ = ['./zegclip_vitb16.py']

model = dict(
    backbone=dict(
        extra_tokens=dict(
            type='RegionTokens', num_tokens=16, init='cls', trainable=False
        ),
    ),
    decode_head=dict(
        query_context='groups',
        memory=('group', 'image', 'patch'),
        two_way=True,
        mask_from='dot',
        recovery=dict(num_layers=1, loss_weight=2.0),
    ),
)
