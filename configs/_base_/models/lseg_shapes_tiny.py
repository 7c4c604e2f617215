# LSeg in small: a ViT from scratch, and the text rows of the tiny CLIP that ships with
# the package.
_base_ = ['./lseg_vitl16.py']

width = 128

model = dict(
    data_preprocessor=dict(
        # Those of the tiny CLIP, on 0..255.
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
    ),
    class_embeddings=dict(
        source=dict(type='clip_text', arch='zs3-shapes-tiny', pretrained='shapes')
    ),
    backbone=dict(
        model='vit_tiny_patch16_224',
        pretrained=False,
        # Scenes of 112 pixels are filled up to 128.
        img_size=128,
        patch_size=8,
        embed_dim=width,
        depth=4,
        num_heads=4,
        out_indices=(0, 1, 2, 3),
    ),
    decode_head=dict(
        in_channels=[width] * 4,
        post_process_channels=[32, 32, 32, 32],
        patch_size=8,
        channels=32,
    ),
)
