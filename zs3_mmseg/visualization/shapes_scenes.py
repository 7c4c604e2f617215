"""Predictions of several segmentors on the same scenes of Shapes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from mmseg.apis import inference_model

from zs3_mmseg.datasets.shapes import PALETTE, THINGS, ShapesDataset
from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.utils.image_io import read_image

from .sheets import comparison_sheet


def draw_shapes(
    models: Iterable[tuple[str, nn.Module]], split: str, data_root: Path, count: int
) -> np.ndarray:
    """Draw image, truth and every model's prediction for a few test scenes.

    They are the first ones that hold an unseen class and at least two things.

    Args:
        models: a title and a segmentor for each column.
        split: name of a split of Shapes.
        data_root: where the scenes are, or will be drawn.
        count: number of scenes.

    Returns:
        the sheet, ``(H, W, 3)`` uint8 RGB, see
        :func:`~zs3_mmseg.visualization.comparison_sheet`.
    """
    found = get_split(split)
    scenes = _scenes_with_unseen(split, data_root, count)
    rows = [[read_image(image), _read_labels(mask)] for image, mask in scenes]
    titles = ['image', 'truth']
    for title, model in models:
        titles.append(title)
        for row, (image, _) in zip(rows, scenes, strict=True):
            sample = inference_model(model, image)
            row.append(sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8))
    return comparison_sheet(
        rows,
        titles=titles,
        classes=found.classes,
        palette=PALETTE,
        unseen=found.unseen,
    )


def _scenes_with_unseen(
    split: str, data_root: Path, count: int
) -> list[tuple[str, str]]:
    """Return image and mask paths."""
    found = get_split(split)
    things = {found.classes.index(name) for name in THINGS}
    unseen = {found.classes.index(name) for name in found.unseen}
    dataset = ShapesDataset(data_root=str(data_root), subset='test', pipeline=[])
    chosen: list[tuple[str, str]] = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        present = set(np.unique(_read_labels(info['seg_map_path'])).tolist())
        if present & unseen and len(present & things) >= 2:
            chosen.append((info['img_path'], info['seg_map_path']))
        if len(chosen) == count:
            break
    return chosen


def _read_labels(path: str) -> np.ndarray:
    with Image.open(path) as opened:
        return np.array(opened)
