# ZegCLIP's schedule in small. What the upsampler learns starts from nothing, unlike the
# rest, which starts as CLIP: of 1, 3 and 10 times the learning rate this was best on
# val scenes.
_base_ = ['./zegclip_160.py']

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(upsampler=dict(lr_mult=10.0))))
