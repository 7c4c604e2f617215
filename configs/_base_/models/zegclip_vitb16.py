# ZegCLIP on OpenAI's ViT-B/16 at 512 pixels, with the numerics of the official code:
# besides those of the base, masks are resized to the training size before the sigmoid.
_base_ = ['./openai_vitb16.py']

image_size = (512, 512)

model = dict(
    type='ZeroShotEncoderDecoder',
    data_preprocessor=dict(size=image_size),
    class_embeddings=dict(templates='single'),
    backbone=dict(
        image_size=image_size,
        prompts=dict(num_tokens=10, depth=11, dropout=0.1),
    ),
    decode_head=dict(
        type='ZegCLIPHead',
        descriptor=('product', 'text'),
        num_layers=3,
        num_heads=8,
        loss_decode=dict(type='NonExclusiveLoss', mask_weight=100.0, dice_weight=1.0),
    ),
    calibrators=[dict(type='SeenShift', shift=0.1, space='score')],
    test_cfg=dict(
        mode='slide', crop_size=image_size, stride=(426, 426), mask_size=image_size
    ),
)
