# OTSeg sized to the tiny CLIP that ships with the package. Its masks are cosines times
# the number of sentences: a learnt factor gives them the size that ZegCLIP's start with
# here.
_base_ = ['./zegclip_shapes_tiny.py']

model = dict(
    class_embeddings=dict(templates='otseg6', reduce_templates=False),
    decode_head=dict(
        attention='sinkhorn',
        mask_from='plan',
        merge_layers='gate',
        score_path='sinkhorn',
        cosine_start=1.0,
        mask_scale=3.3,
    ),
)
