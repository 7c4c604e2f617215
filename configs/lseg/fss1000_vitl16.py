# LSeg with a ViT-L/16 on FSS-1000, options and recipe as released: each image with
# "others" and the name of its class. The weights are the last ones.
# 1 process x 40 pairs.
_base_ = [
    '../_base_/models/lseg_vitl16.py',
    '../_base_/models/lseg_two_words.py',
    '../_base_/datasets/fss1000_lseg.py',
    '../_base_/schedules/lseg_fss.py',
]

model = dict(
    _base_.lseg_two_words,
    split=_base_.split,
    data_preprocessor=dict(size=_base_.lseg_size, size_divisor=None, seg_pad_val=65535),
    # The value that stands for no label where there are more than 254 classes.
    decode_head=dict(_base_.lseg_two_words.decode_head, ignore_index=65535),
)
