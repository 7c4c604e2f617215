# Self-training (ZS5Net): the classifier of shapes_clip.py's first step goes on learning
# from pseudo-labels of unseen classes. 1 process x 16 images. Before:
#   python tools/train.py configs/zs3net/shapes_clip.py
#   python tools/make_pseudo_labels.py configs/zs3net/shapes_clip.py
#     work_dirs/zs3net/shapes_clip/iter_560.pth
#     --out-dir work_dirs/zs3net/shapes_clip/pseudo_labels --top 25
_base_ = ['./shapes_clip_baseline.py']

# The end of the first step of shapes_clip.py.
load_from = 'work_dirs/zs3net/shapes_clip/iter_160.pth'

train_dataloader = dict(
    dataset=dict(pseudo_label_dir='work_dirs/zs3net/shapes_clip/pseudo_labels')
)
