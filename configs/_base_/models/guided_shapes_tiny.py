# Our own head on the tiny CLIP that ships with the package: ZegCLIP with softmax
# cross-entropy, and masks that follow the outlines of the picture.
_base_ = ['./zegclip_shapes_tiny.py']

model = dict(
    decode_head=dict(
        type='GuidedHead',
        loss_decode=None,
        mask_bias=None,
        upsampler=dict(factor=8, window=5, channels=32),
    ),
    calibrators=[],
)
