# Self-training (ZS5Net): the segmentor of shapes_convnet.py goes on learning from
# pseudo-labels of unseen classes, its classifier as a whole. 1 process x 16 images.
# Before:
#   python tools/train.py configs/zs3net/shapes_convnet.py
#   python tools/make_pseudo_labels.py configs/zs3net/shapes_convnet.py
#     work_dirs/zs3net/shapes_convnet/iter_2400.pth
#     --out-dir work_dirs/zs3net/shapes_convnet/pseudo_labels --top 25
_base_ = ['./shapes_convnet_baseline.py']

max_iters = 800
# The end of the first step of shapes_convnet.py.
load_from = 'work_dirs/zs3net/shapes_convnet/iter_1600.pth'

train_dataloader = dict(
    dataset=dict(pseudo_label_dir='work_dirs/zs3net/shapes_convnet/pseudo_labels')
)
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0.0, end=max_iters, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
