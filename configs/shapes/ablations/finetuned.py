# No prompts, and the whole tower is trained; its learning rate is that of the
# fine-tuned baseline.
_base_ = ['./no_prompts.py']

model = dict(backbone=dict(frozen=False))
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'backbone.visual': dict(lr_mult=0.5)})
)
