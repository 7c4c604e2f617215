"""CLIP models of open_clip: architectures, weights and their tokenizers."""

from .architectures import Architecture, build_tokenizer, resolve_architecture
from .clip import (
    LoadedCLIP,
    load_clip,
    openai_sha256,
    release_towers,
    text_features,
    tower_hash,
)
from .positions import resize_positions

__all__ = [
    'Architecture',
    'LoadedCLIP',
    'build_tokenizer',
    'load_clip',
    'openai_sha256',
    'release_towers',
    'resize_positions',
    'resolve_architecture',
    'text_features',
    'tower_hash',
]
