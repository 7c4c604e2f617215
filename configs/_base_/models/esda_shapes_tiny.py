# ESDA sized to the tiny CLIP that ships with the package. Two things are ours: the last
# block attends as in dense CLIP (base), and the projection of the text starts as the
# tower's own turned round, because 15 names are too few to learn one from.
_base_ = ['./clip_shapes_tiny.py']

model = dict(
    type='ClassPromptedSegmentor',
    class_embeddings=dict(templates='bare', normalize=False, token_features=True),
    backbone=dict(
        out_indices=(5,),
        out_global=True,
        normalize=True,
        low_rank=2,
        replace_cls=(1, 2),
        priors=(0, 1, 2, 3, 4, 5),
        text_proj_init='tower',
    ),
    decode_head=dict(
        _delete_=True, type='ESDAHead', num_heads=4, conv_channels=(64, 32, 16)
    ),
)
