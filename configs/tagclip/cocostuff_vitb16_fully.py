# TagCLIP on COCO-Stuff 164k with the labels of all classes: no pixel is unseen, and
# there is no trusty query. 8 GPUs x 2 images.
_base_ = ['./cocostuff_vitb16.py']

model = dict(
    setting='supervised',
    decode_head=dict(extra_query=None, trust_weight=None),
    calibrators=[dict(type='SeenShift', shift=0.1, space='score')],
)
train_dataloader = dict(dataset=dict(setting='supervised'))
