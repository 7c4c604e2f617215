# Queries from the product of text and image alone.
_base_ = ['./official_start.py']

model = dict(decode_head=dict(descriptor=('product',)))
