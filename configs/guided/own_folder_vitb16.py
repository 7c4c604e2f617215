# Our own head with OpenAI's ViT-B/16 on a folder of your own photographs: copy it and
# change the folder's name. 1 GPU x 4 images.
_base_ = ['../zegclip/own_folder_vitb16.py']

model = dict(decode_head=dict(type='GuidedHead'))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(upsampler=dict(lr_mult=10.0))))
