# CaGNet as released: DeepLabv2 on ResNet-101 in Caffe's ways, features of 600 channels,
# and class vectors of fastText and word2vec side by side. Options that repeat an
# accident of the release are marked.
kaiming = dict(type='Kaiming', layer='Conv2d', mode='fan_in', a=0)

model = dict(
    type='CaGNet',
    setting='inductive',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # BGR, without a division.
        mean=[104.008, 116.669, 122.675],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='DeepLabV2ResNet',
        depth=101,
        init_cfg=dict(type='Pretrained', checkpoint='weights/resnet101_caffe.pth'),
    ),
    decode_head=dict(
        type='CaGNetHead',
        in_index=3,
        in_channels=2048,
        channels=600,
        context=dict(
            selector_relu=True,  # an accident
            logvar_relu=True,  # an accident
            train_selector=False,  # an accident
        ),
        background_output=True,  # an accident
        init_cfg=kaiming,
    ),
    generator=dict(embed_dim=600, init_cfg=kaiming),
    content=dict(grouping='run'),  # an accident
    adversarial=dict(kind='l1'),  # an accident: they call it lsgan
    idle_steps=True,  # an accident
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(
            type='concat',
            parts=[
                dict(type='vectors', path='data/word_vectors/crawl-300d-2M.vec'),
                dict(
                    type='vectors',
                    path='data/word_vectors/GoogleNews-vectors-negative300.bin',
                ),
            ],
            normalize_parts=True,
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
