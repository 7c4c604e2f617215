"""Class embeddings: rows that stand for class names."""

from .bank import (
    ClassEmbeddingBank,
    ClassEmbeddings,
    display_name,
    split_names,
    synonyms_of,
)
from .queries import ClassQueries

__all__ = [
    'ClassEmbeddingBank',
    'ClassEmbeddings',
    'ClassQueries',
    'display_name',
    'split_names',
    'synonyms_of',
]
