"""Backbones."""

from .last_attention import LAST_ATTENTION
from .open_clip_vit import OpenCLIPViT

__all__ = ['LAST_ATTENTION', 'OpenCLIPViT']
