# OpenAI's ViT-B/16 with the numerics that the codes of ZegCLIP and ESDA share: the
# class embedding is added twice, positions are resized bilinearly, an image ends at its
# last whole patch. A config adds the segmentor, the size of images and the head.
#
# The weights are open_clip's tag 'openai', which is downloaded on first use. Without a
# network, fetch ViT-B-16.pt and give its path as model.backbone.pretrained and
# model.class_embeddings.source.pretrained.
arch = 'ViT-B-16-quickgelu'
pretrained = 'openai'

model = dict(
    setting='inductive',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # Those of ImageNet, as in the official codes, and not CLIP's.
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='clip_text', arch=arch, pretrained=pretrained),
    ),
    backbone=dict(
        type='OpenCLIPViT',
        arch=arch,
        pretrained=pretrained,
        out_global=True,
        normalize=True,
        grid='floor',
        pos_interp='bilinear',
        cls_embed_twice=True,
    ),
    train_cfg=dict(),
)
