"""Metrics."""

from zs3_mmseg.evaluation.fold_iou_metric import FoldIoUMetric
from zs3_mmseg.evaluation.zero_shot_iou_metric import ZeroShotIoUMetric

__all__ = ['FoldIoUMetric', 'ZeroShotIoUMetric']
