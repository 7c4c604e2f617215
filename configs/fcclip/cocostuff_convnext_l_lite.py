# FC-CLIP-lite on COCO-Stuff 156/15, ours: a plain FPN in the place of deformable
# attention. 8 GPUs x 2 images.
_base_ = ['./cocostuff_convnext_l.py']

model = dict(decode_head=dict(pixel_decoder='fpn'))
