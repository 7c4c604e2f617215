"""Losses of zero-shot segmentation."""

from .class_masks import NonExclusiveLoss, TrustLoss
from .divisors import Divisor
from .edges import EdgeAttentionLoss
from .features import AdversarialLoss, ContentLoss, MMDLoss
from .grounding import GroundingLoss
from .pixels import QFSLLoss, pixel_cross_entropy, pixel_mean
from .query_masks import (
    MaskClassificationLoss,
    MaskTargets,
    best_dice_loss,
    mask_targets,
)

__all__ = [
    'AdversarialLoss',
    'ContentLoss',
    'Divisor',
    'EdgeAttentionLoss',
    'GroundingLoss',
    'MMDLoss',
    'MaskClassificationLoss',
    'MaskTargets',
    'NonExclusiveLoss',
    'QFSLLoss',
    'TrustLoss',
    'best_dice_loss',
    'mask_targets',
    'pixel_cross_entropy',
    'pixel_mean',
]
