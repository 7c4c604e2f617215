# SPT-SEG on COCO-Stuff 164k with the labels of all classes: the upper bound. 4 GPUs x 4
# images.
_base_ = ['./cocostuff_vitb16.py']

model = dict(setting='supervised')
train_dataloader = dict(dataset=dict(setting='supervised'))
