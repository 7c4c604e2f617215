# FC-CLIP with OpenAI's ResNet-50. Masks that cover no cell of its last map are named by
# the head alone.
_base_ = ['./fcclip_convnext_l.py']

arch = 'RN50-quickgelu'
pretrained = 'openai'

model = dict(
    class_embeddings=dict(source=dict(arch=arch, pretrained=pretrained)),
    backbone=dict(type='OpenCLIPResNet', arch=arch, pretrained=pretrained),
    decode_head=dict(
        in_channels=[256, 512, 1024, 2048],
        region_classifier=dict(arch=arch, pretrained=pretrained),
        skip_uncovered=True,
    ),
)
