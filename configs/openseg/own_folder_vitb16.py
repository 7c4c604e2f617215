# OpenSeg's decoders on OpenAI's frozen ViT-B/16 and a folder of your own photographs:
# copy it and change the folder's name. It needs captions/train.json beside images and
# masks. The more captions in a batch, the more there is to tell apart. 1 GPU x 16
# images.
_base_ = [
    '../_base_/models/openseg_vitb16.py',
    '../_base_/datasets/folder_512.py',
    '../_base_/datasets/caption_pack.py',
    '../_base_/schedules/fcclip_20k.py',
]

model = dict(split=_base_.split)
train_pipeline = [*_base_.train_pipeline[:-1], _base_.caption_pack]
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
