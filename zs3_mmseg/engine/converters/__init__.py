"""Converters from the weights files of others to the keys of this package."""

from .cagnet import CaGNetConverter
from .clip import CLIPConverter
from .core import (
    CONVERTERS,
    Conversion,
    Converter,
    KeyRule,
    apply_rules,
    register_converter,
)
from .esda import ESDAConverter
from .fcclip import FCCLIPConverter
from .lseg import LSegConverter
from .sazs import SAZSConverter
from .zegclip import CascadeCLIPConverter, OTSegConverter, ZegCLIPConverter
from .zegclip_family import CLIPRCConverter, SPTSegConverter, TagCLIPConverter
from .zegformer import ZegFormerConverter
from .zs3net import ZS3NetConverter

__all__ = [
    'CONVERTERS',
    'CLIPConverter',
    'CLIPRCConverter',
    'CaGNetConverter',
    'CascadeCLIPConverter',
    'Conversion',
    'Converter',
    'ESDAConverter',
    'FCCLIPConverter',
    'KeyRule',
    'LSegConverter',
    'OTSegConverter',
    'SAZSConverter',
    'SPTSegConverter',
    'TagCLIPConverter',
    'ZS3NetConverter',
    'ZegCLIPConverter',
    'ZegFormerConverter',
    'apply_rules',
    'register_converter',
]
