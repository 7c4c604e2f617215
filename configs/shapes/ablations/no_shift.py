# Seen scores are not shifted.
_base_ = ['../../zegclip/shapes_tiny.py']

model = dict(calibrators=[])
