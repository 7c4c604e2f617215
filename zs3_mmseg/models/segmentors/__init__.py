"""Segmentors."""

from .cagnet import CaGNet
from .class_prompted import ClassPromptedSegmentor
from .encoder_decoder import ZeroShotEncoderDecoder
from .inference import InferenceOptions
from .vocabulary import Vocabulary
from .zero_shot_tta import MultiScaleWindowTTAModel, ZeroShotTTAModel

__all__ = [
    'CaGNet',
    'ClassPromptedSegmentor',
    'InferenceOptions',
    'MultiScaleWindowTTAModel',
    'Vocabulary',
    'ZeroShotEncoderDecoder',
    'ZeroShotTTAModel',
]
