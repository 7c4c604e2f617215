# No prompts: only the head learns, on the frozen tower.
_base_ = ['../../zegclip/shapes_tiny.py']

model = dict(backbone=dict(prompts=None))
