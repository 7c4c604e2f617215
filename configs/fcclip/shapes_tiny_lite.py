# FC-CLIP-lite on Shapes: a plain FPN in the place of deformable attention. 1 process x
# 16 images.
_base_ = ['./shapes_tiny.py']

model = dict(decode_head=dict(pixel_decoder='fpn', pixel_decoder_cfg=None))
