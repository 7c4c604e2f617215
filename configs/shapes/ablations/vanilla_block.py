# CLIP's own last block, as published; the head starts as dense CLIP.
_base_ = ['../../zegclip/shapes_tiny.py']

model = dict(backbone=dict(last_attn='vanilla'))
