# Each layer of the decoder is drawn on its own.
_base_ = ['../../zegclip/shapes_tiny.py']

model = dict(decode_head=dict(identical_layers=False))
