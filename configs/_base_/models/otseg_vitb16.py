# OTSeg on OpenAI's ViT-B/16 at 512 pixels: ZegCLIP with six sentences for each class,
# which are kept apart and coupled to the patches by optimal transport.
_base_ = ['./zegclip_vitb16.py']

model = dict(
    class_embeddings=dict(templates='otseg6', reduce_templates=False),
    decode_head=dict(
        # With the published eps=0.05, at most 100 rounds, tolerance=1e-6.
        attention='sinkhorn',
        mask_from='plan',
        merge_layers='gate',
        score_path='sinkhorn',
    ),
)
