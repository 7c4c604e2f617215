# Direct attribute prediction: which attributes of the shipped table a pixel has, and
# which class has them. No text. 1 process x 16 images.
_base_ = ['./shapes_relation.py']

model = dict(
    class_embeddings=dict(
        _delete_=True,
        type='ClassEmbeddingBank',
        source=dict(type='attributes', table='shapes', binarize=True),
    ),
    decode_head=dict(type='AttributeHead'),
)
