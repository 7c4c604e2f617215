# A third of the iterations, with softmax cross-entropy.
_base_ = ['./schedule_third.py']

model = dict(decode_head=dict(loss_decode=None), calibrators=[])
