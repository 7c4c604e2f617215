# Dense CLIP with the image-level gate: the whole image votes on which classes it
# holds. The weight was chosen on the val scenes by
# tools/analysis_tools/tune_on_val.py.
_base_ = ['./shapes_tiny.py']

model = dict(
    backbone=dict(out_global=True),
    calibrators=[dict(type='ImageLevelGate', weight=0.125)],
)
