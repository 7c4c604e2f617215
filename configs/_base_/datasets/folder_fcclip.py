# A folder of your own as FC-CLIP's code tests pictures; nothing is trained on it.
_base_ = ['./folder_512.py', './fcclip_pipelines.py']

test_pipeline = [
    _base_.test_pipeline[0],
    _base_.fcclip_test_resize,
    *_base_.test_pipeline[2:],
]

train_dataloader = None
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
