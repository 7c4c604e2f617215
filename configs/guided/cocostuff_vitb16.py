# Our own head on COCO-Stuff 164k, inductive: ZegCLIP's recipe, its loss included, and
# masks that follow outlines. 4 GPUs x 4 images.
_base_ = ['../zegclip/cocostuff_vitb16.py']

model = dict(decode_head=dict(type='GuidedHead'))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(upsampler=dict(lr_mult=10.0))))
