"""Hooks, schedulers and runners."""

from . import hooks, schedulers
from .runner import SafeRunner

__all__ = ['SafeRunner', 'hooks', 'schedulers']
