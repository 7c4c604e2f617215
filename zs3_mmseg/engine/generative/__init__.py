"""Retraining a classifier on generated features, piece by piece.

:class:`~zs3_mmseg.engine.hooks.GenerativeRetrainingHook` puts these together.
"""

from .plan import KeyedDraws
from .synthesis import GraphSynthesis, PixelSynthesis, Synthesiser, SynthesisFacts

__all__ = [
    'GraphSynthesis',
    'KeyedDraws',
    'PixelSynthesis',
    'SynthesisFacts',
    'Synthesiser',
]
