"""Decode heads that read class embeddings at run time."""

from .esda_head import ESDAHead
from .text_heads import CosineRegressionHead, DenseTextHead, TextPixelHead
from .zegclip_head import ZegCLIPHead
from .zero_shot_head import ZeroShotHead
from .zs3_deeplab_head import ZS3DeepLabHead

__all__ = [
    'CosineRegressionHead',
    'DenseTextHead',
    'ESDAHead',
    'TextPixelHead',
    'ZS3DeepLabHead',
    'ZegCLIPHead',
    'ZeroShotHead',
]
