"""Losses of zero-shot segmentation."""

from .class_masks import NonExclusiveLoss, TrustLoss
from .divisors import Divisor
from .edges import EdgeAttentionLoss
from .features import AdversarialLoss, ContentLoss, MMDLoss
from .pixels import QFSLLoss, pixel_cross_entropy, pixel_mean
from .query_masks import MaskClassificationLoss, MaskTargets

__all__ = [
    'AdversarialLoss',
    'ContentLoss',
    'Divisor',
    'EdgeAttentionLoss',
    'MMDLoss',
    'MaskClassificationLoss',
    'MaskTargets',
    'NonExclusiveLoss',
    'QFSLLoss',
    'TrustLoss',
    'pixel_cross_entropy',
    'pixel_mean',
]
