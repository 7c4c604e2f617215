# Three times the iterations, with softmax cross-entropy.
_base_ = ['./schedule_3x.py']

model = dict(decode_head=dict(loss_decode=None), calibrators=[])
