# CLIP-RC on Shapes with region tokens that learn, which the released configs leave as
# they start by accident, and that pass the norm of the prompts. 1 process x 16 images.
_base_ = ['./shapes_tiny.py']

model = dict(backbone=dict(extra_tokens=dict(trainable=True, prompt_norm=True)))
