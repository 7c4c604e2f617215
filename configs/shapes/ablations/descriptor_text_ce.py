# No relationship descriptor, and softmax cross-entropy.
_base_ = ['../../zegclip/shapes_tiny_ce.py']

model = dict(decode_head=dict(descriptor=('text',)))
