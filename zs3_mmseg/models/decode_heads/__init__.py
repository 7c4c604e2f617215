"""Decode heads that read class embeddings at run time."""

from .cosine_regression_head import CosineRegressionHead
from .dense_text_head import DenseTextHead
from .esda_head import ESDAHead
from .text_pixel_head import TextPixelHead
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
