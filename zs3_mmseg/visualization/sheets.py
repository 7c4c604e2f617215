"""Sheets that compare label maps of several sources on the same pictures."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from torch import nn

from mmseg.apis import inference_model

from zs3_mmseg.datasets.shapes import PALETTE, THINGS, ShapesDataset
from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.utils.image_io import read_image
from zs3_mmseg.utils.labels import IGNORE_INDEX

from .drawing import (
    class_indices,
    draw_legend,
    draw_segmentation,
    legend_entries,
)
from .text import INK, PAPER, Pen

GAP = 8  # between pictures that stand side by side
_MARGIN = 16


def _fit(picture: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    """Bring the long side to ``size`` pixels, keeping the ratio of the sides."""
    height, width = picture.shape[:2]
    scale = size / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, shape, interpolation=interpolation)


def _fit_picture(picture: np.ndarray, size: int) -> np.ndarray:
    shrinks = max(picture.shape[:2]) > size
    return _fit(picture, size, cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _fit_labels(labels: np.ndarray, size: int) -> np.ndarray:
    return _fit(labels.astype(np.int32), size, cv2.INTER_NEAREST)


def _check_rows(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]) -> None:
    if not rows:
        raise ValueError('a comparison sheet needs at least one row')
    for number, row in enumerate(rows):
        if len(row) != len(titles) or len(row) < 2:
            raise ValueError(
                f'row {number} has {len(row)} pictures for {len(titles)} titles; '
                'expected an image and one label map for each further title'
            )


def draw_titles(titles: Sequence[str], size: int, font_size: int) -> Image.Image:
    """Draw one centred title for each column, on as many lines as it needs."""
    pen, line = Pen(font_size, bold=True), round(font_size * 1.3)
    wrapped = [pen.wrap(title, size) for title in titles]
    margin = font_size // 2
    height = 2 * margin + line * max(map(len, wrapped))
    strip = Image.new('RGB', (len(titles) * (size + GAP) - GAP, height), PAPER)
    for column, lines in enumerate(wrapped):
        middle = column * (size + GAP) + size // 2
        for row, text in enumerate(lines):
            # The last lines of all titles stand above their pictures.
            y = height - margin - (len(lines) - row - 0.5) * line
            pen.write(strip, (middle, y), text, INK, anchor='mm')
    return strip


def _draw_key(
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    unseen: Collection[int],
    present: Collection[int],
    width: int,
    font_size: int,
) -> np.ndarray:
    """Draw the legend of the classes that occur: seen ones first, then unseen ones."""
    entries = legend_entries(classes, palette, unseen)
    groups = {
        'Seen: masks were given' if unseen else '': [
            index for index in sorted(present) if index not in unseen
        ],
        'Unseen: never labelled in training (hatched)': [
            index for index in sorted(present) if index in unseen
        ],
    }
    keys = [
        draw_legend(
            [entries[index] for index in group],
            width,
            font_size=font_size,
            title=title,
            limit=len(group),
        )
        for title, group in groups.items()
        if group
    ]
    return np.concatenate(keys) if keys else np.full((1, width, 3), 255, np.uint8)


#: Of wrong pixels: far from the blue of right ones to colour-blind eyes, too.
WRONG, RIGHT = (213, 94, 0), (86, 180, 233)


def draw_errors(
    image: np.ndarray, truth: np.ndarray, labels: np.ndarray, counted: np.ndarray
) -> np.ndarray:
    """Draw right pixels blue and wrong ones orange over a picture in grey.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        truth: ``(H, W)`` integers.
        labels: ``(H, W)``, the prediction.
        counted: ``(H, W)`` bool; all other pixels are black, as void is.

    Returns:
        ``(H, W, 3)`` uint8, RGB.
    """
    slots = np.where(counted, (labels == truth).astype(np.int64), IGNORE_INDEX)
    colours = (WRONG, RIGHT)
    return draw_segmentation(
        image, slots, ('wrong', 'right'), colours, void_colour=(0, 0, 0), border=False
    )


def comparison_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    unseen: Collection[int | str] = (),
    *,
    ignore_index: int = IGNORE_INDEX,
    alpha: float = 0.85,
    cell: int = 192,
    errors: bool = False,
) -> np.ndarray:
    """Lay out pictures and label maps in a table with titles and a legend.

    Args:
        rows: each row is an RGB image ``(H, W, 3)`` uint8 followed by label maps
            ``(H, W)``: the truth, then one prediction for each method. Rows may
            differ in size. Void pixels are drawn black.
        titles: one for each column, the image's included.
        classes: K class names.
        palette: K colours, RGB, 0..255.
        unseen: names or positions of classes without training masks; hatched.
        ignore_index: the label of pixels that belong to no class.
        alpha: how much the label colours cover the picture below them.
        cell: length of the longer side of a cell, in pixels.
        errors: put a picture of the errors behind each prediction, see
            :func:`draw_errors`.

    Returns:
        ``(h, w, 3)`` uint8, RGB.

    Raises:
        ValueError: rows that don't match the titles, or pictures, labels and classes
            that don't fit each other.
    """
    _check_rows(rows, titles)
    hidden = class_indices(classes, unseen)
    shown = [*titles[:2]]
    for title in titles[2:]:
        shown += [title, f'{title}: errors'] if errors else [title]
    width = len(shown) * (cell + GAP) - GAP
    present: set[int] = set()
    strips = [np.asarray(draw_titles(shown, cell, cell // 10))]
    for image, *maps in rows:
        picture = _fit_picture(image, cell)
        height, row_width = picture.shape[:2]
        strip = np.full((height + GAP, width, 3), 255, np.uint8)
        small = [_fit_labels(labels, cell) for labels in maps]
        panels = [picture]
        for number, labels in enumerate(small):
            present.update(np.unique(labels).tolist())
            drawn = draw_segmentation(
                picture,
                labels,
                classes,
                palette,
                hidden,
                ignore_index,
                alpha,
                void_colour=(0, 0, 0),
            )
            panels.append(drawn)
            if errors and number:
                counted = (small[0] >= 0) & (small[0] < len(classes))
                panels.append(draw_errors(picture, small[0], labels, counted))
        for column, panel in enumerate(panels):
            left = column * (cell + GAP)
            strip[:height, left : left + row_width] = panel
        strips.append(strip)
    used = present & set(range(len(classes)))
    strips.append(_draw_key(classes, palette, hidden, used, width, cell // 12))
    body = np.concatenate(strips)
    return np.pad(
        body, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), constant_values=255
    )


def draw_shapes(
    models: Iterable[tuple[str, nn.Module]],
    split: str,
    data_root: Path,
    count: int,
    errors: bool = False,
) -> np.ndarray:
    """Draw image, truth and every model's prediction for a few test scenes.

    They are the first ones that hold an unseen class and at least two things. With
    ``errors`` each prediction is followed by its errors.

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
        errors=errors,
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
