"""Transforms."""

from zs3_mmseg.datasets.transforms.foreground_crop import ForegroundCrop
from zs3_mmseg.datasets.transforms.letterbox import LetterboxResize
from zs3_mmseg.datasets.transforms.radius_blur import RandomRadiusBlur
from zs3_mmseg.datasets.transforms.random_changes import (
    RandomGaussianBlur,
    RandomRescale,
)

__all__ = [
    'ForegroundCrop',
    'LetterboxResize',
    'RandomGaussianBlur',
    'RandomRadiusBlur',
    'RandomRescale',
]
