# ZegCLIP sized to the tiny CLIP that ships with the package. The head starts as dense
# CLIP instead of flat masks, which take far longer to leave than a CPU has, with a bias
# between the logits of classes that are there (8 in the middle) and others (3); and the
# frozen tower is read by the last block that dense CLIP uses.
_base_ = ['./clip_shapes_tiny.py']

model = dict(
    backbone=dict(
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
        cosine_start=20.0,
        mask_bias=-6.0,
        loss_decode=dict(type='NonExclusiveLoss', mask_weight=100.0, dice_weight=1.0),
    ),
    calibrators=[dict(type='SeenShift', shift=0.1, space='score')],
)
