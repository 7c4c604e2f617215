# Our own head with the middle blocks of Cascade-CLIP: a little ahead of shapes_tiny.py.
# 1 process x 16 images.
_base_ = ['../cascade_clip/shapes_tiny_ce.py']

model = dict(decode_head=dict(type='GuidedHead'))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(upsampler=dict(lr_mult=10.0))))
