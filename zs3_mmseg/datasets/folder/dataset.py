"""``FolderSegDataset``: images, masks and names of a folder, without any code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from zs3_mmseg.datasets.folder.colours import read_palette
from zs3_mmseg.datasets.splits.name_files import CLASSES_FILE, read_names
from zs3_mmseg.utils.image_io import is_picture
from zs3_mmseg.utils.labels import special_labels
from zs3_mmseg.utils.palette import default_palette

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
    :func:`~zs3_mmseg.datasets.folder.colours.read_palette`. Its pipeline needs
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
        """Pair the pictures of the subset with their masks.

        Raises:
            FileNotFoundError: if a folder, a listed picture or a mask is missing.
            ValueError: if two pictures have the same name but for the suffix.
        """
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
