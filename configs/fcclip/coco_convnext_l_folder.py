# Testing only: the released weights, converted, on a folder of your own and
# the names in its classes.txt, however many: synonyms of a class stand on one line,
# "sofa|couch". Names that COCO's 133 classes and their synonyms know count as seen.
# Masks are summed at the size of the picture, as released for ADE20K.
_base_ = [
    '../_base_/models/fcclip_convnext_l.py',
    '../_base_/datasets/folder_512.py',
    '../_base_/datasets/fcclip_pipelines.py',
    '../_base_/default_runtime.py',
]

test_pipeline = [
    _base_.test_pipeline[0],
    _base_.fcclip_test_resize,
    *_base_.test_pipeline[2:],
]
model = dict(
    split='fcclip_coco_133',
    setting='supervised',
    test_split=_base_.split,
    test_cfg=dict(mask_sums='original', return_scores=False),
)
train_dataloader = None
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
