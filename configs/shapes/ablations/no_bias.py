# The cosine start without a bias: at first the sigmoids of all classes are near 1.
_base_ = ['../../zegclip/shapes_tiny.py']

model = dict(decode_head=dict(mask_bias=None))
