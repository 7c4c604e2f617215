# TagCLIP sized to the tiny CLIP that ships with the package. Its trusty query learns
# from the true places of unseen pixels: the setting is 'unseen_location', and results
# LEAK.
_base_ = ['./zegclip_shapes_tiny.py']

model = dict(
    setting='unseen_location',
    decode_head=dict(
        self_attn_layers=(0,),
        identical_layers=False,
        extra_query='trust',
        trust_weight=10.0,
        loss_decode=dict(mask_weight=20.0),
    ),
    calibrators=[
        dict(type='SeenShift', shift=0.1, space='score'),
        dict(type='TrustGate', mode='both'),
    ],
)
