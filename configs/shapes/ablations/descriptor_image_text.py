# Queries from image and text side by side.
_base_ = ['../../zegclip/shapes_tiny.py']

model = dict(decode_head=dict(descriptor=('image', 'text')))
