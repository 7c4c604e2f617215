# ZegFormer-seg: what the model says without a second look, and nothing corrected. To be
# listed after a ZegFormer.
zegformer_seg = dict(decode_head=dict(region_classifier=None), calibrators=[])
