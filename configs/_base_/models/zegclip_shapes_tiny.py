# ZegCLIP sized to the tiny CLIP that ships with the package.
_base_ = ['./clip_shapes_tiny.py']

model = dict(
    backbone=dict(
        # The frozen tower as it was trained, unlike dense CLIP's last block.
        last_attn='vanilla',
        last_block='full',
        out_global=True,
        normalize=True,
        prompts=dict(num_tokens=10, depth=5, dropout=0.1),
    ),
    decode_head=dict(
        _delete_=True,
        type='ZegCLIPHead',
        descriptor=('product', 'text'),
        num_layers=3,
        num_heads=4,
        loss_decode=dict(type='NonExclusiveLoss', mask_weight=100.0, dice_weight=1.0),
    ),
    calibrators=[dict(type='SeenShift', shift=0.1, space='score')],
)
