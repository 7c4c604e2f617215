# PASCAL VOC's 20 classes under the names of FC-CLIP's list.
_base_ = ['./voc12_fcclip.py']

split = 'fcclip_voc12_20'

test_dataloader = dict(dataset=dict(split=split))
