"""Losses of zero-shot segmentation."""

from .non_exclusive_loss import NonExclusiveLoss

__all__ = ['NonExclusiveLoss']
