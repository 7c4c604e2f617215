# Our own head on a folder of your own with the shipped tiny CLIP: copy it and change
# the folder's name. own_folder_vitb16.py is for photographs. 1 process x 16 images.
_base_ = [
    '../_base_/models/guided_shapes_tiny.py',
    '../_base_/datasets/folder.py',
    '../_base_/schedules/guided_160.py',
    '../_base_/default_runtime.py',
]

model = dict(split=_base_.split)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 2))
