# photo_vitb16.py with the weights that OpenCLIP trained on LAION-2B.
_base_ = ['./photo_vitb16.py']

arch = 'ViT-B-16'
pretrained = 'laion2b_s34b_b88k'

model = dict(
    backbone=dict(arch=arch, pretrained=pretrained),
    class_embeddings=dict(source=dict(arch=arch, pretrained=pretrained)),
)
