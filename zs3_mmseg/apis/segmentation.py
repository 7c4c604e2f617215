"""A segmented picture and the three files that are written for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from zs3_mmseg.models.class_embeddings import display_name, synonyms_of
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.labels import NARROW, WIDE
from zs3_mmseg.utils.names import cut_file_name
from zs3_mmseg.visualization.overlay import class_shares, draw_overlay

OVERLAY_SUFFIX = '_overlay.png'
LABELS_SUFFIX = '_labels.png'
JSON_SUFFIX = '.json'


def void_label(num_classes: int) -> int:
    """Return the label of "none of them" in written label maps."""
    if num_classes == 1:
        return 0
    return NARROW.ignore if num_classes <= NARROW.ignore else WIDE.ignore


@dataclass(frozen=True)
class Segmentation:
    """A picture and the class of each of its pixels.

    Attributes:
        image: ``(H, W, 3)`` uint8, RGB, at its original size.
        labels: ``(H, W)`` uint8, or uint16 with more than 255 classes: positions in
            ``classes``, or :func:`void_label` where no class reached the threshold. Of
            a single class it is the mask: 1 where the class is, else 0.
        classes: K class names; synonyms are joined by ``|``.
        palette: K colours, RGB.
        unseen: positions of the classes that had no masks in training.
        source: the file, if the picture came from one.
        notes: what reading the picture changed, such as transparency.
    """

    image: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    unseen: frozenset[int] = frozenset()
    source: str | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def display_names(self) -> tuple[str, ...]:
        """The names to show: of synonyms the first."""
        return tuple(display_name(name) for name in self.classes)

    @property
    def values(self) -> range:
        """What stands for each class in the label map."""
        first = int(len(self.classes) == 1)
        return range(first, first + len(self.classes))

    @property
    def positions(self) -> np.ndarray:
        """``(H, W)`` int32, the position of each pixel's class, or the void label."""
        labels = self.labels.astype(np.int32)
        return labels if len(self.classes) > 1 else np.where(labels, 0, NARROW.ignore)

    @property
    def shares(self) -> np.ndarray:
        """``(K,)`` share of the pixels of each class, 0..1."""
        return class_shares(self.positions, len(self.classes))

    def draw(self, alpha: float = 0.6) -> np.ndarray:
        """Draw it with names and legend; see :func:`draw_overlay`."""
        return draw_overlay(
            self.image,
            self.positions,
            self.display_names,
            self.palette,
            self.unseen,
            alpha=alpha,
        )

    def as_dict(self) -> dict[str, object]:
        """Return everything but the pixels, as JSON can hold it."""
        height, width = self.labels.shape
        shares = self.shares
        pixels = np.rint(shares * self.labels.size).astype(int)
        return {
            'file': self.source,
            'width': width,
            'height': height,
            'classes': [
                {
                    'label': self.values[index],
                    'name': self.display_names[index],
                    'synonyms': list(synonyms_of(name)),
                    'seen': index not in self.unseen,
                    'colour': list(self.palette[index]),
                    'pixels': int(pixels[index]),
                    'share': round(float(shares[index]), 6),
                }
                for index, name in enumerate(self.classes)
            ],
            'void_label': void_label(len(self.classes)),
            'void_pixels': int(self.labels.size - pixels.sum()),
            'notes': list(self.notes),
        }


def _write_png(path: Path, picture: Image.Image) -> None:
    # Level 1 is several times faster than the default and hardly larger here.
    atomic_write(path, lambda out: picture.save(out, 'PNG', compress_level=1))


def label_image(segmentation: Segmentation) -> Image.Image:
    """Return the label map as a picture whose values are the labels.

    Up to 255 classes it is an indexed 8-bit picture with the palette in it (void is
    black), beyond that a 16-bit grey one.
    """
    if segmentation.labels.dtype == np.uint16:
        return Image.fromarray(segmentation.labels)
    picture = Image.fromarray(segmentation.labels).convert('P')
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[list(segmentation.values)] = segmentation.palette
    picture.putpalette(colours.tobytes())
    return picture


def written_files(folder: Path, stem: str) -> tuple[Path, Path, Path]:
    """Return the paths of the overlay, the label map and the JSON file."""
    return (
        folder / (stem + OVERLAY_SUFFIX),
        folder / (stem + LABELS_SUFFIX),
        folder / (stem + JSON_SUFFIX),
    )


def is_result(path: Path) -> bool:
    """Whether a picture was written here, with its JSON file beside it."""
    return any(
        path.name.endswith(suffix)
        and Path(str(path).removesuffix(suffix) + JSON_SUFFIX).is_file()
        for suffix in (OVERLAY_SUFFIX, LABELS_SUFFIX)
    )


def write_segmentation(
    segmentation: Segmentation,
    folder: Path,
    stem: str,
    *,
    alpha: float = 0.6,
    model: Mapping[str, object] | None = None,
) -> tuple[Path, Path, Path]:
    """Write the overlay, the label map and a JSON file, each in one step.

    Args:
        segmentation: the result.
        folder: where to; made if missing.
        stem: how the names of the three files begin.
        alpha: see :func:`draw_overlay`.
        model: what made the result, for the JSON file.

    Returns:
        the three paths.
    """
    overlay, labels, record = written_files(folder, stem)
    _write_png(overlay, Image.fromarray(segmentation.draw(alpha)))
    _write_png(labels, label_image(segmentation))
    content = {
        **segmentation.as_dict(),
        'overlay': overlay.name,
        'labels': labels.name,
        'model': dict(model or {}),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'

    def write_text(out: BinaryIO) -> None:
        # A file name that is no valid text is kept as the escapes of JSON.
        out.write(text.encode(errors='backslashreplace'))

    atomic_write(record, write_text)
    return overlay, labels, record


class OutputNames:
    """Give every input its own name in a folder, without touching any input.

    Args:
        folder: where results go.
        inputs: files that must not be overwritten.
    """

    def __init__(self, folder: Path, inputs: list[Path]) -> None:
        self.folder = folder
        self._protected = {path.resolve() for path in inputs}
        self._taken: set[str] = set()

    def claim(self, wanted: str) -> str:
        """Return ``wanted``, or ``wanted_2``, ``wanted_3``, ... if it is taken.

        Names too long for a file system to add a suffix to are cut.
        """
        wanted = cut_file_name(wanted)
        number, stem = 1, wanted
        while self._is_taken(stem):
            number += 1
            stem = f'{wanted}_{number}'
        # Some file systems take Cat.png and cat.png for the same file.
        files = written_files(self.folder, stem)
        self._taken.update(file.name.casefold() for file in files)
        return stem

    def _is_taken(self, stem: str) -> bool:
        return any(
            file.name.casefold() in self._taken or file.resolve() in self._protected
            for file in written_files(self.folder, stem)
        )
