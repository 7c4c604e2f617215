# ESDA with OpenAI's ViT-B/16 on a folder of your own photographs, asked for all classes
# at once as in voc_vitb16_gzs3.py: copy it and change the folder's name. 1 GPU x 8
# pairs.
_base_ = [
    '../_base_/models/esda_vitb16.py',
    '../_base_/datasets/folder_512.py',
    '../_base_/datasets/prompt_changes.py',
    '../_base_/schedules/esda_200e.py',
]

# That of the released code. All images are brought to it, as its head wants them alike.
image_size = _base_.image_size

model = dict(
    split=_base_.split,
    decode_head=dict(
        token_order='fixed', prior_target='foreground', void_pixels='ignore'
    ),
    calibrators=[dict(type='ImageLevelGate', weight=0.1, space='logit')],
)
train_pipeline = [
    *_base_.train_pipeline[:2],
    *_base_.changes,
    dict(type='ForegroundCrop', size=image_size, pad_val=_base_.mean_bgr),
    *_base_.pack,
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='LetterboxResize', size=image_size[0]),
    _base_.test_pipeline[2],
    *_base_.pack,
]
tta_pipeline = None
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    drop_last=True,
    sampler=dict(_delete_=True, type='EpochDrawSampler'),
    dataset=dict(
        type='ClassPromptDataset',
        negatives=0.25,
        # Where every picture holds an unseen class, dropping those would leave none.
        unseen_policy='ignore',
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
# Unseen classes must not choose the checkpoint.
default_hooks = dict(
    checkpoint=dict(save_best='mIoU_seen'),
    early_stopping=dict(monitor='mIoU_seen'),
)
