# TagCLIP on COCO-Stuff 164k, transductive: self-training from the inductive model after
# 40000 iterations, with a fresh optimiser. As released, no pixel gets a pseudo-label:
# set model.pseudo_labels=True for them. 8 GPUs x 1 image.
#
# load_from is written by `tools/train.py configs/tagclip/cocostuff_vitb16.py`; another
# place goes in with --cfg-options load_from=FILE.
_base_ = ['./cocostuff_vitb16.py']

max_iters = 40000
load_from = 'work_dirs/tagclip/cocostuff_vitb16/iter_40000.pth'

model = dict(
    setting='transductive', calibrators=[dict(type='TrustGate')], pseudo_labels=False
)
train_dataloader = dict(batch_size=1, dataset=dict(setting='transductive'))
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters // 10))
