# Cascade-CLIP sized to the tiny CLIP that ships with the package, whose tower has six
# blocks: taps of the first four, in groups of two.
_base_ = ['./zegclip_shapes_tiny.py']

model = dict(
    backbone=dict(out_indices=(1, 2, 3, 4, -1), tap_projection='frozen_random'),
    decode_head=dict(tap_groups=((0, 1), (2, 3))),
)
