"""Towers, backbones, class embeddings, heads, segmentors and calibrators."""

from . import (
    backbones,
    calibrators,
    class_embeddings,
    decode_heads,
    generators,
    losses,
    segmentors,
    towers,
)

__all__ = [
    'backbones',
    'calibrators',
    'class_embeddings',
    'decode_heads',
    'generators',
    'losses',
    'segmentors',
    'towers',
]
