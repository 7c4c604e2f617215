# The same with weights, gradients and the optimiser's state cut over the GPUs; the
# feed-forward layers of the tower are gathered one at a time. 4 GPUs x 4 images.
_base_ = ['./cocostuff_vitl14.py']

model_wrapper_cfg = dict(type='ShardedDataParallel', units=[r'resblocks\.\d+\.mlp$'])
