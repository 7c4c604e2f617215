# GroupViT for photographs and any words: at most eight segments per picture.
_base_ = ['../_base_/models/groupvit.py', '../_base_/default_runtime.py']

# Whose names are used where nobody gives any: things and grounds of everyday pictures.
split = 'context59_49_10'

model = dict(split=split)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2**20, _base_.short_side), keep_ratio=True),
    dict(type='PackSegInputs'),
]
