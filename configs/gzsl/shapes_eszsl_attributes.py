# ESZSL between features and a table of attributes in place of text. Attributes of 0 and
# 1, as rows of mean 0 cannot say -1 of all classes but one. 1 process x 16 images.
_base_ = ['./shapes_eszsl.py']

model = dict(
    class_embeddings=dict(
        _delete_=True,
        type='ClassEmbeddingBank',
        source=dict(type='attributes', table='shapes', binarize=True),
    ),
)
