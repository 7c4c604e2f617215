# Each layer of the decoder is drawn on its own.
_base_ = ['./official_start.py']

model = dict(decode_head=dict(identical_layers=False))
