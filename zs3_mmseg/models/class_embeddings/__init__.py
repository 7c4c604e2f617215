"""Class embeddings: rows that stand for class names."""

from .bank import (
    ClassEmbeddingBank,
    ClassEmbeddings,
    ClassQueries,
    display_name,
    split_names,
    synonyms_of,
)

__all__ = [
    'ClassEmbeddingBank',
    'ClassEmbeddings',
    'ClassQueries',
    'display_name',
    'split_names',
    'synonyms_of',
]
