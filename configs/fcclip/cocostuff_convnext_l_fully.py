# FC-CLIP on all 171 classes of COCO-Stuff, ConvNeXt-L: semantic masks in the place of
# the published panoptic ones. Trained with mixed precision: add --amp. 8 GPUs x 2
# images.
_base_ = ['./cocostuff_convnext_l.py']

setting = 'supervised'

model = dict(setting=setting)
train_dataloader = dict(dataset=dict(setting=setting))
