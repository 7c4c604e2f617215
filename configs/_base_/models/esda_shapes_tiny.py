# ESDA sized to the tiny CLIP that ships with the package; options as released.
_base_ = ['./clip_shapes_tiny.py']

model = dict(
    type='ClassPromptedSegmentor',
    class_embeddings=dict(templates='bare', normalize=False, token_features=True),
    backbone=dict(
        last_attn='vanilla',
        last_block='full',
        out_indices=(5,),
        out_global=True,
        normalize=True,
        low_rank=2,
        replace_cls=(1, 2),
        priors=(0, 1, 2, 3, 4, 5),
    ),
    decode_head=dict(_delete_=True, type='ESDAHead', num_heads=4),
)
