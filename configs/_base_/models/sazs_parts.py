# The parts of SAZS with its ViT: an ImageNet ViT-L/16 of timm up to block 11, CLIP's
# ViT-B/32 for the text, its rows as they are, and a DINO for eigensegments. All three
# are downloaded on first use; without a network give local files as
# model.backbone.pretrained, model.class_embeddings.source.pretrained and, for DINO,
# features.checkpoint_path with pretrained=False.
text_tower = 'ViT-B-32-quickgelu'

model = dict(
    setting='inductive',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # Those of Cityscapes, as in the released code, and not ImageNet's.
        mean=[73.97575586941214, 83.66076769799994, 73.1758055783808],
        std=[46.65328532904625, 47.57423066993617, 47.041147921979425],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        # Crops have one size; whole patches are all that is asked for.
        size_divisor=16,
    ),
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='clip_text', arch=text_tower, pretrained='openai'),
        templates='bare',
        normalize=False,
    ),
    backbone=dict(
        type='ReadoutViT',
        model='vit_large_patch16_384.augreg_in21k_ft_in1k',
        pretrained=True,
        last_block=11,
        out_channels=512,
    ),
    decode_head=dict(type='SAZSHead'),
    # Eigensegments of DINO's patches correct the predicted mask, without ground truth.
    post_processors=[
        dict(
            type='EigenFusion',
            proposer=dict(
                type='EigenSegmenter',
                centre=False,
                features=dict(
                    type='TIMMBackbone',
                    model_name='vit_small_patch16_224.dino',
                    features_only=True,
                    pretrained=True,
                    dynamic_img_size=True,
                    out_indices=[11],
                ),
            ),
        )
    ],
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
