# OpenAI's ViT-B/16 read as a dense text-queried segmentor, with the block, the windows
# and the sentences of NACLIP.
#
# The weights are open_clip's tag 'openai', which is downloaded on first use. Without a
# network, fetch ViT-B-16.pt and give its path as model.backbone.pretrained and
# model.class_embeddings.source.pretrained.
_base_ = ['./clip_shapes_tiny.py']

arch = 'ViT-B-16-quickgelu'
pretrained = 'openai'
# Of images; photographs of streets have small things and deserve 560.
short_side = 336

model = dict(
    data_preprocessor=dict(size_divisor=16),
    class_embeddings=dict(
        source=dict(arch=arch, pretrained=pretrained), templates='imagenet'
    ),
    backbone=dict(
        arch=arch, pretrained=pretrained, last_attn='naclip', last_block=None
    ),
    # The size that the tower was trained at.
    test_cfg=dict(mode='slide', crop_size=(224, 224), stride=(112, 112)),
)
