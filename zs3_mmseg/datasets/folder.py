"""Data of one's own: a folder of images, masks and text files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS

from zs3_mmseg.datasets.splits.name_files import CLASSES_FILE, read_lines, read_names
from zs3_mmseg.utils.faults import collects_faults, fault
from zs3_mmseg.utils.image_io import (
    MaskError,
    decode_mask,
    is_picture,
    no_pictures,
)
from zs3_mmseg.utils.labels import special_labels
from zs3_mmseg.utils.names import read_json
from zs3_mmseg.utils.palette import default_palette

from .captions import read_captions
from .splits import NameFinder

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


#: Where a colour stands, for messages, then its class (or ``''``) and R, G, B.
Entry = tuple[str, str, list[int]]


def _from_text(path: Path) -> list[Entry]:
    entries = []
    for number, line in read_lines(path):
        found = re.fullmatch(_LINE, line)
        if found is None:
            raise ValueError(
                f'{path}, line {number}: expected "R G B" or "R G B name", got {line!r}'
            )
        colour = [int(found[i]) for i in (1, 2, 3)]
        entries.append((f'{path}, line {number}', found[4] or '', colour))
    return entries


def _from_json(path: Path) -> list[Entry]:
    # As pairs: a dict would keep the last of two colours of a name.
    content = read_json(path, pairs=tuple)
    if not isinstance(content, tuple) or not all(
        isinstance(colour, list) and all(type(value) is int for value in colour)
        for _, colour in content
    ):
        raise ValueError(f'{path}: expected {{"name": [R, G, B], ...}}')
    return [(str(path), name, colour) for name, colour in content]


def _as_table(
    path: Path,
    entries: list[Entry],
    classes: Sequence[str],
    ignore_index: int,
) -> ColourTable:
    for where, name, colour in entries:
        if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
            raise ValueError(f'{where}: {colour} of {name!r} is no colour of 0 to 255')
    void = [colour for _, name, colour in entries if name.lower() in VOID_NAMES]
    rest = [entry for entry in entries if entry[1].lower() not in VOID_NAMES]
    if any(name for _, name, _ in rest):
        colours: dict[int, list[int]] = {}
        finder = NameFinder(classes)
        for where, name, colour in rest:
            try:
                place = finder.find(name) if name else None
            except ValueError as error:  # an empty synonym
                raise ValueError(f'{where}: {error}') from error
            if place is None or place in colours:
                raise ValueError(
                    f'{where}: {name!r} is '
                    + ('listed twice' if place is not None else 'none of the classes')
                )
            colours[place] = colour
        ordered = [colours.get(place) for place in range(len(classes))]
    else:
        ordered = [colour for _, _, colour in rest]
    if len(ordered) != len(classes) or None in ordered:
        raise ValueError(
            f'{path} has colours for {len(rest)} of {len(classes)} classes'
        )
    return ColourTable([c for c in ordered if c], void, ignore_index, str(path))


@TRANSFORMS.register_module()
class LoadFolderMasks(LoadAnnotations):
    """``LoadAnnotations`` for :class:`FolderSegDataset`: indices or colours.

    Unlike mmseg's it keeps all 16 bits of a mask and reads drawn colours by the
    palette of the data set. A picture that comes without a mask passes unchanged.
    """

    def transform(self, results: dict) -> dict:
        # mmseg's inference_model takes LoadAnnotations out of a pipeline, not this.
        return super().transform(results) if 'seg_map_path' in results else results

    def _load_seg_map(self, results: dict) -> None:
        if 'read_mask' not in results:
            raise ValueError(
                'LoadFolderMasks belongs to FolderSegDataset; other data sets have '
                'LoadAnnotations'
            )
        labels = results['read_mask'](results['seg_map_path'])
        if 0 <= labels.min(initial=0) <= labels.max(initial=0) < 2**8:
            labels = labels.astype(np.uint8)
        results['gt_seg_map'] = labels
        results['seg_fields'].append('gt_seg_map')


IMAGES, MASKS, CAPTIONS = 'images', 'masks', 'captions'


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
          captions/train.json  only for what learns from captions, see LoadCaptions

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
        root = Path(data_root).expanduser()
        classes = read_names(root / CLASSES_FILE)
        ignore = kwargs.setdefault('ignore_index', special_labels(len(classes)).ignore)
        self.subset = subset
        self.colours: ColourTable | None = None
        try:
            self.colours = read_palette(root, classes, ignore)
        except ValueError as error:
            fault(error)
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
        images, masks = (
            _by_name(Path(self.data_prefix[key]), suffix)
            for key, suffix in (
                ('img_path', self.img_suffix),
                ('seg_map_path', self.seg_map_suffix),
            )
        )
        if not images:
            folder = self.data_prefix['img_path']
            raise FileNotFoundError(no_pictures(folder, self.img_suffix))
        names = self._listed(images)
        unpaired = [name for name in names if name not in masks]
        if unpaired and not collects_faults():
            folder = self.data_prefix['seg_map_path']
            raise FileNotFoundError(
                f'{len(unpaired)} of {len(names)} images have no mask in '
                f'{folder}, for example {images[unpaired[0]]}'
                + ('' if masks else f'; {no_pictures(folder, self.seg_map_suffix)}')
            )
        path = Path(str(self.data_root), CAPTIONS, f'{self.subset}.json')
        said = read_captions(path) if path.is_file() else None
        return [
            dict(
                img_path=self._path('img_path', name, images),
                seg_map_path=self._path('seg_map_path', name, masks),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
                **({} if said is None else {'caption': said.get(Path(name).name, '')}),
            )
            for name in names
        ]

    def _path(self, key: str, name: str, found: dict[str, Path]) -> str:
        """Return a file that is there, or how it could be called."""
        return str(found.get(name, Path(self.data_prefix[key], f'{name}.png')))

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
        names = [name for _, name in read_lines(path)]
        if not names:
            raise ValueError(f'{path} lists no name')
        missing = [name for name in names if name not in images]
        if missing and not collects_faults():
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
        mask = decode_mask(path)
        labels = mask.grey if self.colours is None else mask.pixels
        if labels is None:
            raise MaskError(
                Path(path),
                f'holds colours (mode {mask.mode}), and neither palette.txt nor '
                f'palette.json in {self.data_root} explains them',
                'colour_mask',
            )
        if self.colours is None or labels.ndim == 2:
            return labels
        try:
            return self.colours.labels(labels)
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
            fault(
                ValueError(
                    f'{found[name]} and {path} have one name; img_suffix or '
                    'seg_map_suffix chooses'
                )
            )
        found.setdefault(name, path)
    return found
