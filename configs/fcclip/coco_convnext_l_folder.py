# Testing only: the released weights, converted, on a folder of your own and
# the names in its classes.txt, however many: synonyms of a class stand on one line,
# "sofa|couch". Names that COCO's 133 classes and their synonyms know count as seen.
# Masks are summed at the size of the picture, as released for ADE20K.
_base_ = [
    '../_base_/models/fcclip_convnext_l.py',
    '../_base_/datasets/folder_fcclip.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split='fcclip_coco_133',
    setting='supervised',
    test_split=_base_.split,
    test_cfg=dict(mask_sums='original', return_scores=False),
)
