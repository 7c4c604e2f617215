# Prompts before the first block only.
_base_ = ['../../zegclip/shapes_tiny.py']

model = dict(backbone=dict(prompts=dict(depth=0)))
# Shallow prompts leave their norm out, as in the official code.
find_unused_parameters = True
