# Fine-tuning of CaGNet in rounds of 100 iterations on real and 100 on generated
# features; trunk and contextual module stay. A fine-tuning inherits from a training as
# well, so these are values to take over.
cagnet_cycle = dict(joint_iters=0, real_iters=100, generated_iters=100)
# Of crops of 368 pixels.
cagnet_generated_size = (47, 47)
cagnet_rate = 5e-5
cagnet_steps = dict(type='MultiStepLR', by_epoch=False)
