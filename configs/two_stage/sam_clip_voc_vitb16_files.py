# Masks that were stored before, one file for each image, named by CLIP: the choice that
# gives everybody the same masks. See MaskFileProposer for what may be in the folder.
_base_ = ['./sam_clip_voc_vitb16.py']

model = dict(
    decode_head=dict(
        proposer=dict(_delete_=True, type='MaskFileProposer', root='data/voc12_masks')
    )
)
