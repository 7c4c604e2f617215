# ESDA on OpenAI's ViT-B/16, with the numerics of the released code: besides those of
# the base, all resizes of maps align corners.
_base_ = ['./openai_vitb16.py']

image_size = (480, 480)

model = dict(
    type='ClassPromptedSegmentor',
    data_preprocessor=dict(size=image_size),
    class_embeddings=dict(templates='bare', normalize=False, token_features=True),
    backbone=dict(
        image_size=image_size,
        out_indices=(11,),
        low_rank=2,
        replace_cls=(2, 3, 4),
        priors=tuple(range(12)),
    ),
    decode_head=dict(type='ESDAHead'),
    test_cfg=dict(mode='whole'),
)
