"""Segmentors."""

from .options import InferenceOptions
from .vocabulary import Vocabulary
from .zero_shot_encoder_decoder import ZeroShotEncoderDecoder
from .zero_shot_tta import ZeroShotTTAModel

__all__ = [
    'InferenceOptions',
    'Vocabulary',
    'ZeroShotEncoderDecoder',
    'ZeroShotTTAModel',
]
