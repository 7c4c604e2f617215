# ZegCLIP with ViT-L/14 on PASCAL VOC 2012; not in the paper. 4 GPUs x 4 images.
_base_ = ['./voc_vitb16.py']

arch = 'ViT-L-14-quickgelu'
model = dict(
    class_embeddings=dict(source=dict(arch=arch)),
    # 512 pixels are no whole number of patches: pad to 37 x 37 of them.
    backbone=dict(arch=arch, image_size=518, grid='pad', prompts=dict(depth=23)),
)
