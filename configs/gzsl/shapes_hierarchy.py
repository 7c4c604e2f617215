# Dense CLIP down a tree of names: groups of classes first, then classes. No training.
_base_ = ['../clip_dense/shapes_tiny.py']

model = dict(
    class_embeddings=dict(hierarchy='shapes'),
    decode_head=dict(
        _delete_=True,
        type='HierarchicalTextHead',
        projection='none',
        scale=40.0,
        learn_scale=False,
        # The tiny text tower never met words such as "vehicle".
        inner='mean',
    ),
)
