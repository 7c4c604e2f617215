"""Hooks, optimisers of parts, schedulers and runners."""

from . import hooks, loops, part_optimizers, schedulers, sharding
from .runner import SafeRunner

__all__ = ['SafeRunner', 'hooks', 'loops', 'part_optimizers', 'schedulers', 'sharding']
