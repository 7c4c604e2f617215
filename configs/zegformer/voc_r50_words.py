# ZegFormer-seg on PASCAL VOC 2012 with word vectors in place of CLIP's text: the rows
# of fastText and word2vec side by side, 600 values. Files: docs/methods/zegformer.md. 8
# GPUs x 4 images.
_base_ = ['./voc_r50_seg.py']

model = dict(
    class_embeddings=dict(
        _delete_=True,
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
        ),
        reduce_synonyms=True,
    )
)
