"""Towers, backbones, class embeddings, heads, segmentors and what joins them."""

from . import (
    backbones,
    calibrators,
    class_embeddings,
    decode_heads,
    eigen_segments,
    generators,
    losses,
    post_processors,
    proposers,
    region_classifiers,
    segmentors,
    towers,
)

__all__ = [
    'backbones',
    'calibrators',
    'class_embeddings',
    'decode_heads',
    'eigen_segments',
    'generators',
    'losses',
    'post_processors',
    'proposers',
    'region_classifiers',
    'segmentors',
    'towers',
]
