# ZegCLIP with the 100 prompt tokens and the 15 sentences published for COCO-Stuff.
_base_ = ['./zegclip_vitb16.py']

model = dict(
    backbone=dict(prompts=dict(num_tokens=100)),
    class_embeddings=dict(templates='zegclip'),
)
