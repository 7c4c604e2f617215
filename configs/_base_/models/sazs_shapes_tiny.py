# SAZS sized to Shapes: a small ViT from scratch, the text tower of the tiny CLIP that
# ships with the package, and eigensegments of colours.
_base_ = ['./sazs_vitl16.py']

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], size_divisor=8
    ),
    class_embeddings=dict(
        source=dict(arch='zs3-shapes-tiny', pretrained='shapes'), templates='single'
    ),
    backbone=dict(
        model='vit_tiny_patch16_224',
        pretrained=False,
        img_size=112,
        patch_size=8,
        depth=6,
        last_block=5,
        out_channels=128,
    ),
    post_processors=[
        dict(
            type='EigenFusion',
            proposer=dict(
                type='EigenSegmenter',
                features='colour',
                colour_weight=10.0,
                long_side=112,
                patch_size=4,
            ),
        )
    ],
)
