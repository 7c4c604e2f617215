# Half the iterations, with softmax cross-entropy.
_base_ = ['./schedule_half.py']

model = dict(decode_head=dict(loss_decode=None, mask_bias=None), calibrators=[])
