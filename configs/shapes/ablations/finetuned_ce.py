# The tower is trained, and the loss is softmax cross-entropy.
_base_ = ['./finetuned.py']

model = dict(decode_head=dict(loss_decode=None, mask_bias=None), calibrators=[])
