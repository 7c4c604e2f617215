# Tokens of objects, after OC-ZSS, on OpenAI's ViT-B/16 at 512 pixels: clusters of the
# patches of a frozen DINO ViT-B/16, and OTSeg's head. What the paper's abstract does
# not say was decided here.
_base_ = ['./otseg_vitb16.py']

model = dict(
    backbone=dict(
        extra_tokens=dict(
            type='ClusterTokens',
            num_tokens=16,
            features=dict(
                type='TIMMBackbone',
                model_name='vit_base_patch16_224.dino',
                features_only=True,
                pretrained=True,
                dynamic_img_size=True,
            ),
        ),
    ),
    decode_head=dict(type='ObjectCentricHead'),
)
