"""Decode heads that read class embeddings at run time."""

from .dense_text_head import DenseTextHead
from .text_pixel_head import TextPixelHead
from .zegclip_head import ZegCLIPHead
from .zero_shot_head import ZeroShotHead

__all__ = ['DenseTextHead', 'TextPixelHead', 'ZegCLIPHead', 'ZeroShotHead']
