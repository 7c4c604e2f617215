# The whole image tower fine-tuned with softmax cross-entropy on the seen classes.
# 1 process x 16 images.
_base_ = ['./shapes_tiny_linear.py']

model = dict(backbone=dict(frozen=False))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
