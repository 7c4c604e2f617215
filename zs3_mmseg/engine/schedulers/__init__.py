"""Schedules of published methods that mmengine's schedulers do not express."""

from .warmup_poly import WarmupPolyLR

__all__ = ['WarmupPolyLR']
