"""Segmentors."""

from .class_prompted_segmentor import ClassPromptedSegmentor
from .options import InferenceOptions
from .vocabulary import Vocabulary
from .zero_shot_encoder_decoder import ZeroShotEncoderDecoder
from .zero_shot_tta import ZeroShotTTAModel

__all__ = [
    'ClassPromptedSegmentor',
    'InferenceOptions',
    'Vocabulary',
    'ZeroShotEncoderDecoder',
    'ZeroShotTTAModel',
]
