# Cascade-CLIP on OpenAI's ViT-B/16 at 512 pixels: ZegCLIP with decoders of their own
# for two groups of three middle blocks each. Their projections stay as they are drawn,
# as in the official configs, whose list of what is trained leaves them out;
# 'trainable' and 'clip' are the sound choices.
_base_ = ['./zegclip_vitb16.py']

model = dict(
    backbone=dict(
        out_indices=(5, 6, 7, 8, 9, 10, -1),
        tap_projection='frozen_random',
    ),
    decode_head=dict(tap_groups=((0, 1, 2), (3, 4, 5))),
)
