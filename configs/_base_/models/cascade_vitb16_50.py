# Cascade-CLIP with the 50 prompt tokens published for COCO-Stuff and ZegCLIP's 15
# sentences.
_base_ = ['./cascade_vitb16.py']

model = dict(
    backbone=dict(prompts=dict(num_tokens=50)),
    class_embeddings=dict(templates='zegclip'),
)
