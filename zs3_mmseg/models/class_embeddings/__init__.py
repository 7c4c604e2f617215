"""Class embeddings: rows that stand for class names."""

from .bank import (
    ClassEmbeddingBank,
    ClassEmbeddings,
    class_vectors,
    display_name,
    split_names,
    synonyms_of,
)
from .queries import ClassQueries

__all__ = [
    'ClassEmbeddingBank',
    'ClassEmbeddings',
    'ClassQueries',
    'class_vectors',
    'display_name',
    'split_names',
    'synonyms_of',
]
