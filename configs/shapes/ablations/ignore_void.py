# Pixels without a label are left out of the non-exclusive loss.
_base_ = ['../../zegclip/shapes_tiny.py']

model = dict(decode_head=dict(loss_decode=dict(ignore_void=True)))
