"""Data sets, splits, samplers and transforms."""

from zs3_mmseg.datasets import samplers
from zs3_mmseg.datasets.shapes import ShapesDataset
from zs3_mmseg.datasets.zero_shot_dataset import ZeroShotDataset

__all__ = ['ShapesDataset', 'ZeroShotDataset', 'samplers']
