# OpenSeg on a folder of your own with the shipped tiny CLIP: copy it and change the
# folder's name. It needs captions/train.json beside images and masks.
# own_folder_vitb16.py is for photographs. 1 process x 16 images.
_base_ = [
    '../_base_/models/openseg_shapes_tiny.py',
    '../_base_/datasets/folder.py',
    '../_base_/datasets/caption_pack.py',
    '../_base_/schedules/zegformer_shapes_160.py',
]

model = dict(split=_base_.split)
train_pipeline = [*_base_.train_pipeline[:-1], _base_.caption_pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
