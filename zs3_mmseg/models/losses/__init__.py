"""Losses of zero-shot segmentation."""

from .mmd_loss import MMDLoss
from .non_exclusive_loss import NonExclusiveLoss

__all__ = ['MMDLoss', 'NonExclusiveLoss']
