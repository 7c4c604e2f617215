"""Samplers whose order does not depend on workers or on interruptions."""

from .draw_sampler import DrawSampler

__all__ = ['DrawSampler']
