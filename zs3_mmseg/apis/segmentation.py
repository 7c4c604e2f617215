"""A segmented picture and the three files that are written for it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zs3_mmseg.models.class_embeddings import display_name, synonyms_of
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.labels import NARROW, WIDE
from zs3_mmseg.utils.names import cut_file_name
from zs3_mmseg.visualization.heat_maps import heat_map_sheet
from zs3_mmseg.visualization.overlay import class_shares, draw_overlay

from .regions import Region, find_regions, run_lengths

OVERLAY_SUFFIX = '_overlay.png'
LABELS_SUFFIX = '_labels.png'
JSON_SUFFIX = '.json'
HEAT_SUFFIX = '_heat.png'


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
        scores: ``(K, H, W)`` float32, if they were asked for.
    """

    image: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    unseen: frozenset[int] = frozenset()
    source: str | None = None
    notes: tuple[str, ...] = field(default=())
    scores: np.ndarray | None = None

    @property
    def display_names(self) -> tuple[str, ...]:
        """The names to show: of synonyms the first."""
        return tuple(display_name(name) for name in self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """The same as ``display_names``."""
        return self.display_names

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

    def draw(self, alpha: float = 0.6, *, whole_legend: bool = False) -> np.ndarray:
        """Draw it with names and legend; see :func:`draw_overlay`."""
        return draw_overlay(
            self.image,
            self.positions,
            self.display_names,
            self.palette,
            self.unseen,
            alpha=alpha,
            whole_legend=whole_legend,
        )

    def draw_heat_maps(self) -> np.ndarray:
        """Draw where each word was found; see :func:`heat_map_sheet`.

        Raises:
            ValueError: without scores.
        """
        if self.scores is None:
            raise ValueError(
                'no scores were kept: ask for them with return_scores=True'
            )
        return heat_map_sheet(self.image, self.scores, self.display_names)

    def overlay(self, alpha: float = 0.6) -> Image.Image:
        """Return what :meth:`draw` draws as a picture of Pillow."""
        return Image.fromarray(self.draw(alpha))

    def show(self) -> None:
        """Open the overlay in the viewer of the desktop."""
        self.overlay().show()

    def _repr_png_(self) -> bytes:
        """Return the overlay as notebooks show it."""
        stream = io.BytesIO()
        self.overlay().save(stream, 'PNG')
        return stream.getvalue()

    def save(self, folder: str | os.PathLike, stem: str | None = None) -> list[Path]:
        """Write overlay, label map, JSON file and, with scores, heat maps.

        Args:
            folder: where to; made if missing. Files of the same names are replaced.
            stem: how their names begin; by default as that of the source file.

        Returns:
            their paths.
        """
        begin = stem or (Path(self.source).stem if self.source else 'picture')
        return [*write_segmentation(self, Path(folder), begin)]

    def regions(self) -> list[Region]:
        """Return the connected regions of all classes as polygons, class by class."""
        positions = self.positions
        return [
            region
            for index in range(len(self.classes))
            for region in find_regions(positions == index, index)
        ]

    def to_geojson(self) -> dict[str, Any]:
        """Return the regions as a GeoJSON ``FeatureCollection``, in pixels.

        ``x`` grows to the right and ``y`` downwards, from the top left corner.
        """
        features = [
            {
                'type': 'Feature',
                'properties': {'name': self.names[region.position]},
                'geometry': {
                    'type': 'Polygon',
                    'coordinates': [
                        [[x, y] for x, y in (*ring, ring[0])]
                        for ring in (region.outline, *region.holes)
                    ],
                },
            }
            for region in self.regions()
        ]
        return {'type': 'FeatureCollection', 'features': features}

    def to_coco(self, image_id: int = 1) -> dict[str, Any]:
        """Return a data set of this picture in the format of COCO.

        Each class that occurs is one annotation, a mask in uncompressed run lengths,
        which pycocotools reads. Categories are numbered from 1 in the order of
        ``classes``, annotations in that of the categories.
        """
        height, width = self.labels.shape
        positions = self.positions
        annotations: list[dict[str, Any]] = []
        for index in range(len(self.classes)):
            mask = positions == index
            if not mask.any():
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top = int(columns[0]), int(rows[0])
            box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': index + 1,
                    'segmentation': {
                        'size': [height, width],
                        'counts': run_lengths(mask),
                    },
                    'area': int(mask.sum()),
                    'bbox': box,
                    'iscrowd': 0,
                }
            )
        image = {
            'id': image_id,
            'width': width,
            'height': height,
            'file_name': self.source or '',
        }
        categories = [
            {'id': index + 1, 'name': name} for index, name in enumerate(self.names)
        ]
        return {'images': [image], 'annotations': annotations, 'categories': categories}

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


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file in one step."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
    # A file name that is no valid text is kept as the escapes of JSON.
    encoded = text.encode(errors='backslashreplace')
    atomic_write(path, lambda out: out.write(encoded))


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


def written_files(folder: Path, stem: str) -> tuple[Path, Path, Path, Path]:
    """Return the paths of overlay, label map, JSON file and, if written, heat maps."""
    return (
        folder / (stem + OVERLAY_SUFFIX),
        folder / (stem + LABELS_SUFFIX),
        folder / (stem + JSON_SUFFIX),
        folder / (stem + HEAT_SUFFIX),
    )


def is_result(path: Path) -> bool:
    """Whether a picture was written here, with its JSON file beside it."""
    return any(
        path.name.endswith(suffix)
        and Path(str(path).removesuffix(suffix) + JSON_SUFFIX).is_file()
        for suffix in (OVERLAY_SUFFIX, LABELS_SUFFIX, HEAT_SUFFIX)
    )


def write_segmentation(
    segmentation: Segmentation,
    folder: Path,
    stem: str,
    *,
    alpha: float = 0.6,
    model: Mapping[str, object] | None = None,
) -> tuple[Path, ...]:
    """Write the overlay, the label map and a JSON file, each in one step.

    Of a segmentation with scores, the heat maps of its words as well.

    Args:
        segmentation: the result.
        folder: where to; made if missing.
        stem: how the names of the three files begin.
        alpha: see :func:`draw_overlay`.
        model: what made the result, for the JSON file.

    Returns:
        the three or four paths.
    """
    overlay, labels, record, heat = written_files(folder, stem)
    _write_png(overlay, Image.fromarray(segmentation.draw(alpha)))
    _write_png(labels, label_image(segmentation))
    if segmentation.scores is not None:
        _write_png(heat, Image.fromarray(segmentation.draw_heat_maps()))
    content = {
        **segmentation.as_dict(),
        'overlay': overlay.name,
        'labels': labels.name,
        'model': dict(model or {}),
    }
    write_json(record, content)
    written = (overlay, labels, record)
    return written if segmentation.scores is None else (*written, heat)


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
