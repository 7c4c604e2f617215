# Shapes whose samples bring the caption of each scene.
_base_ = ['./shapes.py']

train_pipeline = [
    *_base_.train_pipeline[:-1],
    dict(
        type='PackSegInputs',
        meta_keys=('img_path', 'ori_shape', 'img_shape', 'caption'),
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
