# OTSeg with the 100 prompt tokens and the eight sentences published for COCO-Stuff.
_base_ = ['./otseg_vitb16.py']

model = dict(
    backbone=dict(prompts=dict(num_tokens=100)),
    class_embeddings=dict(templates='otseg8'),
)
