# CLIP-RC on PASCAL VOC 2012 with the labels of all classes, as published: nothing is
# recovered. 2 GPUs x 8 images.
_base_ = ['./voc_vitb16.py']

model = dict(setting='supervised', decode_head=dict(recovery=None))
train_dataloader = dict(dataset=dict(setting='supervised'))
