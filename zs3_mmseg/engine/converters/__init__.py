"""Converters from the weights files of others to the keys of this package."""

from .clip import CLIPConverter
from .conversion import Conversion, Rule, apply_rules
from .converter import CONVERTERS, Converter, register_converter

__all__ = [
    'CONVERTERS',
    'CLIPConverter',
    'Conversion',
    'Converter',
    'Rule',
    'apply_rules',
    'register_converter',
]
