"""Hooks and runners."""

from . import hooks
from .runner import SafeRunner

__all__ = ['SafeRunner', 'hooks']
