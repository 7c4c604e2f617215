# Tokens of objects, after OC-ZSS, on the tiny CLIP that ships with the package, whose
# own patches are clustered; the head is OTSeg's.
_base_ = ['./otseg_shapes_tiny.py']

model = dict(
    backbone=dict(extra_tokens=dict(type='ClusterTokens', num_tokens=8)),
    decode_head=dict(type='ObjectCentricHead'),
)
