# Shapes whose samples bring the caption of each scene.
_base_ = ['./shapes.py', './caption_pack.py']

train_pipeline = [*_base_.train_pipeline[:-1], _base_.caption_pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
