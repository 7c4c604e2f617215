# The start as published, with softmax cross-entropy.
_base_ = ['./official_start.py']

model = dict(decode_head=dict(loss_decode=None), calibrators=[])
