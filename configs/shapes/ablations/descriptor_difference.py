# Queries from the absolute difference of text and image alone.
_base_ = ['../../zegclip/shapes_tiny.py']

model = dict(decode_head=dict(descriptor=('difference',)))
