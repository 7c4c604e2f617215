# CaGNet on the frozen tiny CLIP: the same features as in zs3_clip_shapes_tiny.py.
_base_ = ['./zs3_clip_shapes_tiny.py']

model = dict(
    type='CaGNet',
    split='shapes_a',
    setting='inductive',
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='clip_text', arch=_base_.arch, pretrained=_base_.pretrained),
        templates='zegclip',  # means over 15 sentences
    ),
    decode_head=dict(
        _delete_=True,
        type='CaGNetHead',
        in_index=0,
        in_channels=128,
        channels=128,
        num_classes=20,
        # The backbone's map is the feature map.
        dilations=(),
        context=dict(mid_channels=64),
        hidden_channels=256,
        dropout_ratio=0.0,
    ),
    generator=dict(hidden_channels=(256, 256), dropout=(0.1, 0.1)),
    content=dict(grouping='class', samples_per_group=32),
    # The backbone has one scale.
    scales=(),
)
