"""Hooks, optimisers of parts, schedulers and runners."""

from . import hooks, part_optimizers, schedulers
from .runner import SafeRunner

__all__ = ['SafeRunner', 'hooks', 'part_optimizers', 'schedulers']
