"""Label maps that a model made, for pixels whose ground truth stays hidden.

A folder of pseudo-labels holds one PNG for each image, named after the image, with
indices into the split's classes (ignore: the pixel keeps no label), and a sidecar
``pseudo_labels.json``::

    {"model": "what made the maps", "settings": {...}, "classes": ["...", ...]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zs3_mmseg.datasets.splits import ZeroShotSplit
from zs3_mmseg.utils.labels import special_labels

SIDECAR = 'pseudo_labels.json'
_KEYS = ('model', 'settings', 'classes')


class PseudoLabels:
    """The maps of one folder, checked against a split.

    Args:
        folder: the folder with the maps and their sidecar.
        split: the split whose classes the maps must use.

    Raises:
        FileNotFoundError: if the folder has no sidecar.
        ValueError: if the sidecar is incomplete or names other classes.
    """

    def __init__(self, folder: str | Path, split: ZeroShotSplit) -> None:
        self.folder = Path(folder)
        sidecar = self._read_sidecar()
        classes = tuple(sidecar['classes'])
        if classes != split.classes:
            raise ValueError(
                f'{self.folder / SIDECAR}: its classes are not those of split '
                f'{split.name!r} in the same order; make the maps for this split'
            )
        self.model: str = str(sidecar['model'])
        self.settings: Mapping[str, Any] = sidecar['settings']
        self._classes = len(classes)
        self._ignore = special_labels(len(classes)).ignore

    def _read_sidecar(self) -> dict[str, Any]:
        path = self.folder / SIDECAR
        if not path.is_file():
            raise FileNotFoundError(
                f'{path} is missing: pseudo_label_dir must be a folder that our tool '
                'made, with a sidecar naming its model and settings'
            )
        try:
            sidecar = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f'{path} is no readable JSON: {error}') from error
        if not isinstance(sidecar, dict):
            raise ValueError(f'{path} is no JSON object with {", ".join(_KEYS)}')
        missing = [key for key in _KEYS if key not in sidecar]
        if missing:
            raise ValueError(f'{path} does not name {" and ".join(missing)}')
        return sidecar

    def fill(
        self, labels: np.ndarray, hidden: np.ndarray, image_path: str
    ) -> np.ndarray:
        """Put the model's labels where the ground truth is hidden.

        Args:
            labels: label map after hiding, (H, W); not changed.
            hidden: which of its pixels are hidden, (H, W), bool.
            image_path: the image; its map has the same name, with ``.png``.

        Returns:
            A new label map, (H, W). Hidden pixels that the model ignored keep the
            value that hides them.

        Raises:
            FileNotFoundError: if the image has no map.
            ValueError: naming the map, if it is damaged, or its size or a value is
                wrong.
        """
        path = self.folder / f'{Path(image_path).stem}.png'
        if not path.is_file():
            raise FileNotFoundError(
                f'{path} is missing: no pseudo-labels of this image'
            )
        try:
            with Image.open(path) as image:
                pseudo = np.asarray(image)
        except (OSError, SyntaxError) as error:
            raise ValueError(f'{path} is no whole picture: {error}') from error
        if pseudo.shape != labels.shape:
            raise ValueError(
                f'{path}: the map is {pseudo.shape}, the ground truth {labels.shape}'
            )
        wrong = (pseudo < 0) | ((pseudo >= self._classes) & (pseudo != self._ignore))
        if wrong.any():
            raise ValueError(
                f'{path}: {int(pseudo[wrong][0])} is neither one of {self._classes} '
                f'classes nor {self._ignore}'
            )
        return np.where(hidden & (pseudo != self._ignore), pseudo, labels).astype(
            labels.dtype
        )
