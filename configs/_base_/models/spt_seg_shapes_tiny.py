# SPT-SEG sized to the tiny CLIP that ships with the package. Its masks cannot start as
# dense CLIP, as ZegCLIP's do here: they start flat.
_base_ = ['./zegclip_shapes_tiny.py']

model = dict(
    backbone=dict(spectral=dict(blocks=(0, 1), train=True)),
    decode_head=dict(
        attention=dict(type='hilo', window=3, low_share=0.9),
        num_heads=8,
        cosine_start=None,
        mask_bias=None,
        loss_decode=dict(dice_weight=0.0, ssim_weight=1.0),
    ),
)
