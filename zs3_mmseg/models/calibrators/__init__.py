"""Test-time corrections of class scores."""

from .base import Calibrator
from .image_level_gate import ImageLevelGate
from .seen_shift import SeenShift

__all__ = ['Calibrator', 'ImageLevelGate', 'SeenShift']
