# Queries from the absolute difference of text and image alone.
_base_ = ['./official_start.py']

model = dict(decode_head=dict(descriptor=('difference',)))
