# LSeg with a ResNet-101 on fold 0 of COCO-20i, options and recipe as released: each
# image with "others" and one name. The weights are the last ones. 1 process x 40 pairs.
_base_ = [
    '../_base_/models/lseg_rn101.py',
    '../_base_/models/lseg_two_words.py',
    '../_base_/datasets/coco20i_lseg.py',
    '../_base_/schedules/lseg_fold.py',
]

model = dict(
    _base_.lseg_two_words,
    split=_base_.split,
    data_preprocessor=dict(size=_base_.lseg_size, size_divisor=None),
    # The spellings of the code: 'trafficlight', 'sofa'.
    class_embeddings=dict(texts='lseg_coco'),
)
