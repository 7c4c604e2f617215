"""What the bytes of one image and its mask hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from zs3_mmseg.utils.image_io import read_image

LabelReader = Callable[[str], np.ndarray]


@dataclass
class MaskFacts:
    """What is in one mask file.

    Attributes:
        path: the file.
        labels: its values, (H, W); None if it has none that could be class indices.
        palette: its own colours by value, (256, 3), if it carries any.
        problems: kind of finding to a few words.
    """

    path: str
    labels: np.ndarray | None = None
    palette: np.ndarray | None = None
    problems: dict[str, str] = field(default_factory=dict)


def inspect_mask(path: str, reader: LabelReader | None, deep: bool) -> MaskFacts:
    """Decode a mask without the pipeline.

    Args:
        path: the file.
        reader: how the data set itself turns a file into labels, if it does not leave
            that to mmseg's ``LoadAnnotations``.
        deep: whether 16 bits are expected.
    """
    facts = MaskFacts(path)
    try:
        if reader is not None:
            facts.labels = reader(path)
            return facts
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of large files, neither of which matters.
            warnings.simplefilter('ignore')
            with Image.open(path) as image:
                image.load()
                _read(facts, image, deep)
    except ValueError as error:
        facts.problems['label_out_of_range'] = str(error)
    except (OSError, SyntaxError) as error:
        facts.problems['unreadable_mask'] = str(error)
    return facts


def _read(facts: MaskFacts, image: Image.Image, deep: bool) -> None:
    if image.mode in ('L', 'P', '1'):
        facts.labels = np.asarray(image).astype(np.uint8)
        colours = image.getpalette('RGB') if image.mode == 'P' else None
        if colours is not None:
            table = np.zeros((256, 3), np.uint8)
            table.reshape(-1)[: len(colours)] = colours
            facts.palette = table
    elif image.mode == 'I' or image.mode.startswith('I;16'):
        facts.labels = np.asarray(image).astype(np.int64)
        if not deep:
            facts.problems['deep_mask'] = f'values up to {facts.labels.max()}'
    else:
        facts.problems['colour_mask'] = f'mode {image.mode}'


def image_problem(path: str) -> tuple[str | None, tuple[int, int] | None]:
    """Decode an image to its end.

    Returns:
        What is wrong with it, or None; and its upright size (height, width).
    """
    try:
        height, width, _ = read_image(path).shape
    except OSError as error:
        return str(error), None
    return None, (height, width)


def label_reader(dataset: Any) -> LabelReader | None:
    """Return a data set's own way from a mask file to labels, if it has one."""
    return getattr(dataset, 'read_mask', None)
