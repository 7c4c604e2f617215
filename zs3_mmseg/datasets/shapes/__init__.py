"""Shapes: a procedural world of 20 classes with pixel-exact masks."""

from zs3_mmseg.datasets.shapes.dataset import ShapesDataset
from zs3_mmseg.datasets.shapes.scene import Scene, render_scene
from zs3_mmseg.datasets.shapes.vocabulary import CLASSES, GROUNDS, PALETTE, THINGS, VOID

__all__ = [
    'CLASSES',
    'GROUNDS',
    'PALETTE',
    'THINGS',
    'VOID',
    'Scene',
    'ShapesDataset',
    'render_scene',
]
