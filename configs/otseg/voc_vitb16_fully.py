# OTSeg on PASCAL VOC 2012 with the labels of all classes: the upper bound. The released
# file names the text rows of Pascal-Context, which do not fit; these are VOC's.
_base_ = ['./voc_vitb16.py']

model = dict(setting='supervised')
train_dataloader = dict(dataset=dict(setting='supervised'))
