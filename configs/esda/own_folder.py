# ESDA on a folder of your own with the shipped tiny CLIP, asked for all classes at once
# as in shapes_tiny_gzs3.py: copy it and change the folder's name. own_folder_vitb16.py
# is for photographs. 1 process x 8 pairs.
_base_ = [
    '../_base_/models/esda_shapes_tiny.py',
    '../_base_/datasets/folder.py',
    '../_base_/schedules/esda_400.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split=_base_.split,
    decode_head=dict(
        token_order='fixed', prior_target='foreground', void_pixels='ignore'
    ),
    calibrators=[dict(type='ImageLevelGate', weight=0.1, space='logit')],
)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        type='ClassPromptDataset',
        negatives=0.25,
        # Where every picture holds an unseen class, dropping those would leave none.
        unseen_policy='ignore',
    ),
)
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=_base_.max_iters // 2))
