# ESDA on OpenAI's ViT-B/16, with the numerics of the released code: the class embedding
# is added twice, positions are resized bilinearly, all resizes of maps align corners.
#
# The weights are open_clip's tag 'openai', which is downloaded on first use. Without a
# network, fetch ViT-B-16.pt and give its path as model.backbone.pretrained and
# model.class_embeddings.source.pretrained.
arch = 'ViT-B-16-quickgelu'
pretrained = 'openai'
image_size = (480, 480)

model = dict(
    type='ClassPromptedSegmentor',
    setting='inductive',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # Those of ImageNet, as in the released code, and not CLIP's.
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=image_size,
    ),
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='clip_text', arch=arch, pretrained=pretrained),
        templates='bare',
        normalize=False,
        token_features=True,
    ),
    backbone=dict(
        type='OpenCLIPViT',
        arch=arch,
        pretrained=pretrained,
        image_size=image_size,
        out_indices=(11,),
        out_global=True,
        normalize=True,
        grid='floor',
        pos_interp='bilinear',
        cls_embed_twice=True,
        low_rank=2,
        replace_cls=(2, 3, 4),
        priors=tuple(range(12)),
    ),
    decode_head=dict(type='ESDAHead'),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
