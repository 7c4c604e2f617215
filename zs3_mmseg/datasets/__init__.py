"""Data sets, splits, samplers and transforms."""

from zs3_mmseg.datasets import class_edges, pil_transforms, samplers, transforms
from zs3_mmseg.datasets.captions import LoadCaptions
from zs3_mmseg.datasets.class_prompt_dataset import ClassPromptDataset
from zs3_mmseg.datasets.coco_objects import COCOObjectsDataset
from zs3_mmseg.datasets.folder import FolderSegDataset, LoadFolderMasks
from zs3_mmseg.datasets.fss1000 import FSS1000Dataset
from zs3_mmseg.datasets.panoptic import (
    COCOPanopticDataset,
    LoadPanopticAnnotations,
    PackPanopticInputs,
    PanopticDataset,
)
from zs3_mmseg.datasets.shapes import ShapesDataset
from zs3_mmseg.datasets.zero_shot_dataset import ZeroShotDataset

__all__ = [
    'COCOObjectsDataset',
    'COCOPanopticDataset',
    'ClassPromptDataset',
    'FSS1000Dataset',
    'FolderSegDataset',
    'LoadCaptions',
    'LoadFolderMasks',
    'LoadPanopticAnnotations',
    'PackPanopticInputs',
    'PanopticDataset',
    'ShapesDataset',
    'ZeroShotDataset',
    'class_edges',
    'pil_transforms',
    'samplers',
    'transforms',
]
