"""Data of one's own: a folder of images, masks and text files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS

from zs3_mmseg.datasets.splits.name_files import CLASSES_FILE, read_names
from zs3_mmseg.utils.image_io import is_picture
from zs3_mmseg.utils.labels import special_labels
from zs3_mmseg.utils.palette import default_palette

from .splits import find_name

__all__ = ['FolderSegDataset', 'LoadFolderMasks']


PALETTE_FILES = ('palette.txt', 'palette.json')
#: Names of colours that stand for "no class" in a palette.
VOID_NAMES = ('void', 'ignore')
_LINE = r'(\d+)[\s,]+(\d+)[\s,]+(\d+)(?:[\s,]+(.+))?'


class ColourTable:
    """Which colour, RGB, means which label; those of void mean ``ignore_index``."""

    def __init__(
        self,
        colours: Sequence[Sequence[int]],
        void: Sequence[Sequence[int]],
        ignore_index: int,
        origin: str,
    ) -> None:
        self.colours = [list(colour) for colour in colours]
        self._origin = origin
        codes = _codes(np.array([*colours, *void], dtype=np.uint8).reshape(-1, 3))
        labels = np.array(
            [*range(len(colours)), *[ignore_index] * len(void)], dtype=np.int64
        )
        order = np.argsort(codes, kind='stable')
        self._codes, self._labels = codes[order], labels[order]
        twice = np.flatnonzero(self._codes[1:] == self._codes[:-1])
        if len(twice):
            colour = _as_colour(self._codes[twice[0]])
            raise ValueError(f'{origin} gives the colour {colour} to two classes')

    def labels(self, pixels: np.ndarray) -> np.ndarray:
        """Return the labels, (H, W), int64, of an RGB picture, (H, W, 3), uint8."""
        codes = _codes(pixels)
        places = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        unknown = self._codes[places] != codes
        if unknown.any():
            wrong = np.unique(codes[unknown])
            shown = ', '.join(str(_as_colour(code)) for code in wrong[:4])
            raise ValueError(
                f'{len(wrong)} colours of the mask are not in {self._origin}: {shown}'
                f'{", ..." if len(wrong) > 4 else ""} (was it saved as JPEG, or drawn '
                'with smooth edges?)'
            )
        return self._labels[places]


def _codes(pixels: np.ndarray) -> np.ndarray:
    """Pack RGB into one number for each pixel."""
    wide = pixels.astype(np.int64)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def _as_colour(code: int) -> tuple[int, int, int]:
    return int(code) >> 16, int(code) >> 8 & 255, int(code) & 255


def read_palette(
    folder: Path, classes: Sequence[str], ignore_index: int
) -> ColourTable | None:
    """Read the palette of a folder, if it has one.

    ``palette.txt`` has a line ``R G B`` for each class in the order of the classes, or
    lines ``R G B name`` in any order; ``palette.json`` is ``{"name": [R, G, B]}``. The
    names ``void`` and ``ignore`` stand for pixels that are no class.
    """
    for name in PALETTE_FILES:
        path = folder / name
        if path.is_file():
            entries = _from_json(path) if name.endswith('.json') else _from_text(path)
            return _as_table(path, entries, classes, ignore_index)
    return None


def _from_text(path: Path) -> list[tuple[str, list[int]]]:
    entries = []
    for number, line in enumerate(path.read_text('utf-8-sig').splitlines(), 1):
        if not line.strip() or line.lstrip().startswith('#'):
            continue
        found = re.fullmatch(_LINE, line.strip())
        if found is None:
            raise ValueError(
                f'{path}, line {number}: expected "R G B" or "R G B name", got {line!r}'
            )
        entries.append((found[4] or '', [int(found[i]) for i in (1, 2, 3)]))
    return entries


def _from_json(path: Path) -> list[tuple[str, list[int]]]:
    try:
        content = json.loads(path.read_text('utf-8-sig'))
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is no readable JSON: {error}') from error
    if not isinstance(content, dict) or not all(
        isinstance(colour, list) and all(type(value) is int for value in colour)
        for colour in content.values()
    ):
        raise ValueError(f'{path}: expected {{"name": [R, G, B], ...}}')
    return list(content.items())


def _as_table(
    path: Path,
    entries: list[tuple[str, list[int]]],
    classes: Sequence[str],
    ignore_index: int,
) -> ColourTable:
    for name, colour in entries:
        if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
            raise ValueError(f'{path}: {colour} of {name!r} is no colour of 0 to 255')
    void = [colour for name, colour in entries if name.lower() in VOID_NAMES]
    rest = [entry for entry in entries if entry[0].lower() not in VOID_NAMES]
    if any(name for name, _ in rest):
        colours: dict[int, list[int]] = {}
        for name, colour in rest:
            place = find_name(name, classes) if name else None
            if place is None or place in colours:
                raise ValueError(
                    f'{path}: {name!r} is '
                    + ('listed twice' if place is not None else 'none of the classes')
                )
            colours[place] = colour
        ordered = [colours.get(place) for place in range(len(classes))]
    else:
        ordered = [colour for _, colour in rest]
    if len(ordered) != len(classes) or None in ordered:
        raise ValueError(
            f'{path} has colours for {len(rest)} of {len(classes)} classes'
        )
    return ColourTable([c for c in ordered if c], void, ignore_index, str(path))


@TRANSFORMS.register_module()
class LoadFolderMasks(LoadAnnotations):
    """``LoadAnnotations`` for :class:`FolderSegDataset`: indices or colours.

    Unlike mmseg's it keeps all 16 bits of a mask and reads drawn colours by the
    palette of the data set.
    """

    def _load_seg_map(self, results: dict) -> None:
        if 'read_mask' not in results:
            raise ValueError(
                'LoadFolderMasks belongs to FolderSegDataset; other data sets have '
                'LoadAnnotations'
            )
        labels = results['read_mask'](results['seg_map_path'])
        if labels.max(initial=0) < 2**8:
            labels = labels.astype(np.uint8)
        results['gt_seg_map'] = labels
        results['seg_fields'].append('gt_seg_map')


IMAGES, MASKS = 'images', 'masks'


@DATASETS.register_module()
class FolderSegDataset(BaseSegDataset):
    """A folder of one's own data::

        data_root/
          classes.txt        one name on each line, the first is label 0
          unseen.txt         names without masks in training; for split=dict(folder=...)
          palette.txt        only if masks are drawn in colours, see below
          images/train/...   pictures of any format, in folders of any depth
          masks/train/...    a mask of the same name for each, lossless (PNG)
          images/val/...     and so on for each subset

    In place of a folder for each subset, ``train.txt`` and ``val.txt`` may list the
    names (without suffix) of those in ``images/``. Masks hold class indices, with 8 or
    16 bits, 255 (65535 for more than 254 classes) where there is no class; or colours,
    which ``palette.txt`` or ``palette.json`` explains:
    :func:`~zs3_mmseg.datasets.folder.read_palette`. Its pipeline needs
    :class:`~zs3_mmseg.datasets.folder.LoadFolderMasks` in place of
    ``LoadAnnotations``.

    Args:
        data_root: the folder.
        subset: name of a folder below ``images`` and ``masks``, or of a list; ``''``
            for all images.
        img_suffix: take only images with this end of the name, and cut it off to get
            the mask's name; ``''`` for every picture.
        seg_map_suffix: end of the masks' names; ``''`` for any picture.
        **kwargs: of ``BaseSegDataset``.

    Raises:
        FileNotFoundError: if a file or folder is missing; the message says which.
        ValueError: if a text file is wrong, or two pictures would share a mask.
    """

    def __init__(
        self,
        data_root: str | os.PathLike,
        subset: str = '',
        *,
        img_suffix: str = '',
        seg_map_suffix: str = '',
        **kwargs: Any,
    ) -> None:
        root = Path(data_root)
        classes = read_names(root / CLASSES_FILE)
        ignore = kwargs.setdefault('ignore_index', special_labels(len(classes)).ignore)
        self.subset = subset
        self.colours = read_palette(root, classes, ignore)
        palette = (
            self.colours.colours if self.colours else default_palette(len(classes))
        )
        chosen = subset if (root / IMAGES / subset).is_dir() else ''
        super().__init__(
            data_root=str(root),
            data_prefix=dict(
                img_path=os.path.join(IMAGES, chosen),
                seg_map_path=os.path.join(MASKS, chosen),
            ),
            metainfo=dict(classes=classes, palette=palette),
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Pair the pictures of the subset with their masks."""
        images = _by_name(Path(self.data_prefix['img_path']), self.img_suffix)
        masks = _by_name(Path(self.data_prefix['seg_map_path']), self.seg_map_suffix)
        names = self._listed(images)
        unpaired = [name for name in names if name not in masks]
        if unpaired:
            raise FileNotFoundError(
                f'{len(unpaired)} of {len(names)} images have no mask in '
                f'{self.data_prefix["seg_map_path"]}, for example '
                f'{images[unpaired[0]]}'
            )
        return [
            dict(
                img_path=str(images[name]),
                seg_map_path=str(masks[name]),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for name in names
        ]

    def _listed(self, images: dict[str, Path]) -> list[str]:
        root = Path(str(self.data_root))
        if not self.subset or (root / IMAGES / self.subset).is_dir():
            return sorted(images)
        path = root / f'{self.subset}.txt'
        if not path.is_file():
            raise FileNotFoundError(
                f'subset {self.subset!r} of {root} has neither a folder '
                f'{root / IMAGES / self.subset} nor a list {path}'
            )
        names = read_names(path)
        missing = [name for name in names if name not in images]
        if missing:
            raise FileNotFoundError(
                f'{path} lists {len(missing)} names without a picture in '
                f'{root / IMAGES}, for example {missing[0]!r}; names have no suffix'
            )
        return names

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return the annotation of one sample, and how its mask is read."""
        info = super().get_data_info(idx)
        info['read_mask'] = self.read_mask
        return info

    def read_mask(self, path: str) -> np.ndarray:
        """Read a mask as labels, (H, W), uint8 or wider.

        Raises:
            OSError: naming the file, if it cannot be decoded to its end.
            ValueError: naming the file, if its colours or values mean nothing.
        """
        with Image.open(path) as image:
            try:
                image.load()
            except (OSError, SyntaxError) as error:
                raise OSError(f'{path} is no whole picture: {error}') from error
            if image.mode in ('L', 'P', '1') or image.mode.startswith('I'):
                return np.asarray(image) * 1  # 1-bit masks become 0 and 1
            if self.colours is None:
                raise ValueError(
                    f'{path} holds colours (mode {image.mode}), and there is neither '
                    f'palette.txt nor palette.json in {self.data_root} to explain them'
                )
            pixels = np.asarray(image.convert('RGB'))
        try:
            return self.colours.labels(pixels)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error


def _by_name(folder: Path, suffix: str) -> dict[str, Path]:
    """Return the pictures of a folder by their name without suffix."""
    if not folder.is_dir():
        raise FileNotFoundError(f'the folder {folder} is missing')
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob('*')):
        if not is_picture(path) or not path.name.endswith(suffix):
            continue
        relative = path.relative_to(folder).as_posix()
        name = relative[: -len(suffix or path.suffix)]
        if name in found:
            raise ValueError(
                f'{found[name]} and {path} have one name; img_suffix or '
                'seg_map_suffix chooses'
            )
        found[name] = path
    return found
