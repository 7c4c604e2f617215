# TagCLIP on PASCAL VOC 2012, transductive: self-training from the inductive model after
# 10000 iterations, with a fresh optimiser. As released, no pixel gets a pseudo-label:
# set model.pseudo_labels=True for them. There is no trusty query either, which the
# inductive model has: train with --cfg-options allow_missing=True. 8 GPUs x 2 images.
#
# load_from is written by `tools/train.py configs/tagclip/voc_vitb16.py`; another place
# goes in with --cfg-options load_from=FILE.
_base_ = ['./voc_vitb16.py']

max_iters = 10000
load_from = 'work_dirs/tagclip/voc_vitb16/iter_10000.pth'

model = dict(
    setting='transductive',
    calibrators=[],
    pseudo_labels=False,
    decode_head=dict(extra_query=None, trust_weight=None),
)
train_dataloader = dict(dataset=dict(setting='transductive'))
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters // 10))
