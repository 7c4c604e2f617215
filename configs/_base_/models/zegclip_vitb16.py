# ZegCLIP on OpenAI's ViT-B/16 at 512 pixels, with the numerics of the official code:
# the class embedding is added twice, positions are resized bilinearly, an image ends at
# its last whole patch, and masks are resized to the training size before the sigmoid.
#
# The weights are open_clip's tag 'openai', which is downloaded on first use. Without a
# network, fetch ViT-B-16.pt and give its path as model.backbone.pretrained and
# model.class_embeddings.source.pretrained.
arch = 'ViT-B-16-quickgelu'
pretrained = 'openai'
image_size = (512, 512)

model = dict(
    type='ZeroShotEncoderDecoder',
    setting='inductive',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # Those of ImageNet, as in the official code, and not CLIP's.
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
        templates='single',
    ),
    backbone=dict(
        type='OpenCLIPViT',
        arch=arch,
        pretrained=pretrained,
        image_size=image_size,
        out_global=True,
        normalize=True,
        grid='floor',
        pos_interp='bilinear',
        cls_embed_twice=True,
        prompts=dict(num_tokens=10, depth=11, dropout=0.1),
    ),
    decode_head=dict(
        type='ZegCLIPHead',
        descriptor=('product', 'text'),
        num_layers=3,
        num_heads=8,
        loss_decode=dict(type='NonExclusiveLoss', mask_weight=100.0, dice_weight=1.0),
    ),
    calibrators=[dict(type='SeenShift', shift=0.1, space='score')],
    train_cfg=dict(),
    test_cfg=dict(
        mode='slide', crop_size=image_size, stride=(426, 426), mask_size=image_size
    ),
)
