# ZegFormer on PASCAL VOC 2012, ResNet-50, 10,000 iterations, as released: in the test
# the CLIP that looks through the masks names them alone, and no score is shifted. 8
# GPUs x 4 images.
_base_ = [
    '../_base_/models/zegformer_r50.py',
    '../_base_/datasets/voc12_zegformer.py',
    '../_base_/schedules/zegformer_10k.py',
]

model = dict(
    split=_base_.split,
    decode_head=dict(seen_weight=1.0, unseen_weight=1.0, pool_seen=False),
    calibrators=[],
)
