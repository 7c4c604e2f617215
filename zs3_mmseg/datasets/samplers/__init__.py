"""Samplers whose order does not depend on workers or on interruptions."""

from .draw_sampler import DrawSampler
from .epoch_draw_sampler import EpochDrawSampler

__all__ = ['DrawSampler', 'EpochDrawSampler']
