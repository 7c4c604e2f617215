# No relationship descriptor: queries are made from the text alone.
_base_ = ['../../zegclip/shapes_tiny.py']

model = dict(decode_head=dict(descriptor=('text',)))
