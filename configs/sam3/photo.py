# SAM 3 for photographs and any words.
_base_ = ['../_base_/models/sam3.py', '../_base_/default_runtime.py']

# Whose names are used where nobody gives any: things and grounds of everyday pictures.
split = 'context59_49_10'

model = dict(split=split)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(_base_.side, _base_.side), keep_ratio=False),
    dict(type='PackSegInputs'),
]
