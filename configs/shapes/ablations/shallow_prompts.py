# Prompts before the first block only.
_base_ = ['../../zegclip/shapes_tiny.py']

model = dict(backbone=dict(prompts=dict(depth=0)))
