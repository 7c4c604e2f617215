"""Towers, backbones, class embeddings, heads, segmentors and what joins them."""

from . import (
    backbones,
    calibrators,
    class_embeddings,
    conv_clip_classifier,
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
    'conv_clip_classifier',
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
