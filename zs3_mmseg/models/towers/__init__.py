"""CLIP models of open_clip: architectures, weights and their tokenizers."""

from .architectures import Architecture, resolve_architecture
from .loading import LoadedCLIP, load_clip, release_towers, tower_hash
from .positions import resize_positions
from .text_features import text_features
from .weights import openai_sha256

__all__ = [
    'Architecture',
    'LoadedCLIP',
    'load_clip',
    'openai_sha256',
    'release_towers',
    'resize_positions',
    'resolve_architecture',
    'text_features',
    'tower_hash',
]
