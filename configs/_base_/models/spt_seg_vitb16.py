# SPT-SEG on OpenAI's ViT-B/16 at 512 pixels. The authors released the parts of the
# model and no recipe: what is not here is ZegCLIP's.
_base_ = ['./zegclip_vitb16.py']

model = dict(
    backbone=dict(
        # Released code would leave the filter as it starts, as it trains what is named
        # a prompt alone; train=False does so.
        spectral=dict(blocks=(0, 1), train=True),
    ),
    decode_head=dict(
        attention=dict(type='hilo', window=3, low_share=0.9),
        loss_decode=dict(dice_weight=0.0, ssim_weight=1.0),
    ),
)
