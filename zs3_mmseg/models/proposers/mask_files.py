"""Masks that somebody has computed before: the reproducible choice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.utils.cache import content_hash
from zs3_mmseg.utils.config_check import ConfigError

from .proposer import Proposals, Proposer, at_size

SUFFIXES = ('.npz', '.png', '.json')


@MODELS.register_module()
class MaskFileProposer(Proposer):
    """Reads masks from a file for each image, which has the image's name.

    Beside ``street.jpg`` of any folder stands one of these in ``root``:

    - ``street.npz``: ``masks`` ``(M, H, W)`` of 0 and 1, and ``scores`` ``(M,)`` in
      0..1 if there are such; written by ``numpy.savez_compressed``;
    - ``street.png``: 8 or 16 bits, one channel; each value but 0 is one mask;
    - ``street.json``: the list that SAM's automatic generator writes, with run-length
      masks (``segmentation``) and ``predicted_iou``; needs ``pycocotools``.

    Masks have the size of the image file and are brought to the size that the network
    sees, pixel by pixel. Nothing is cached but the latest images.

    Args:
        root: the folder.
        kept_images: see :class:`Proposer`.

    Raises:
        FileNotFoundError: if the folder, or later the file of an image, does not exist.
        ValueError: in use, for a file that holds no masks of the image's size.
    """

    needs_meta = True

    def __init__(self, root: str | Path, *, kept_images: int = 8) -> None:
        super().__init__(cache=False, kept_images=kept_images)
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise FileNotFoundError(
                f'MaskFileProposer.root: the folder {self.root} does not exist'
            )
        self._meta: Mapping[str, Any] = {}

    @property
    def fingerprint(self) -> str:
        """The file that is read, and when it changed last."""
        path = self._file()
        return content_hash(str(path.resolve()), str(path.stat().st_mtime_ns))

    def scored(
        self, image: Tensor, meta: Mapping[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return masks ``(M, H, W)`` and scores ``(M,)`` of an image ``(3, H, W)``."""
        if meta is None or not meta.get('img_path'):
            raise ConfigError(
                'MaskFileProposer finds masks by the name of the image file, which is '
                'not known here: give images as files, or use another proposer'
            )
        self._meta = meta
        return super().scored(image, meta)

    def _file(self) -> Path:
        stem = Path(self._meta['img_path']).stem
        for suffix in SUFFIXES:
            path = self.root / f'{stem}{suffix}'
            if path.is_file():
                return path
        raise FileNotFoundError(
            f'MaskFileProposer.root={str(self.root)!r} has no masks of {stem}: '
            'expected ' + ' or '.join(f'{stem}{suffix}' for suffix in SUFFIXES)
        )

    def propose(self, image: Tensor) -> Proposals:
        """Read the masks, at the size of the image ``(3, H, W)``."""
        path = self._file()
        try:
            masks, scores = _READERS[path.suffix](path)
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise ValueError(f'{path} holds no masks: {error}') from error
        size = tuple(self._meta['ori_shape'][:2])
        if masks.shape[1:] != size:
            raise ValueError(
                f'{path} has masks of {masks.shape[2]} x {masks.shape[1]} pixels, and '
                f'{Path(self._meta["img_path"]).name} has {size[1]} x {size[0]}: make '
                'them from this image, or set proposer.root to the folder of its masks'
            )
        # What the network sees may be a canvas with the image in its top left corner.
        canvas = tuple(self._meta.get('canvas_shape', size)[:2])
        missing = (0, canvas[1] - size[1], 0, canvas[0] - size[0])
        full = F.pad(torch.from_numpy(masks), missing)
        found = at_size(full, (image.shape[1], image.shape[2]))
        return found, torch.from_numpy(scores)


def _from_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as found:
        masks = found['masks']
        scores = found['scores'] if 'scores' in found else np.ones(len(masks))
    if masks.ndim != 3 or masks.dtype.kind not in 'bu' or (masks > 1).any():
        raise ValueError(
            f'masks is {masks.dtype} of shape {masks.shape}, expected (M, H, W) of 0 '
            'and 1'
        )
    if scores.shape != masks.shape[:1]:
        raise ValueError(f'{len(masks)} masks have {scores.shape} scores')
    return masks.astype(bool), scores.astype(np.float32)


def _from_png(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with Image.open(path) as image:
        numbers = np.asarray(image)
    if numbers.ndim != 2:
        raise ValueError('it has several channels')
    values = np.unique(numbers)
    values = values[values != 0]
    return numbers == values[:, None, None], np.ones(len(values), np.float32)


def _from_json(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        from pycocotools import mask as run_lengths
    except ImportError as error:
        raise ModuleNotFoundError(
            f'{path} holds run-length masks, which need the package pycocotools: '
            'pip install pycocotools, or this package with [datasets]'
        ) from error
    entries = json.loads(path.read_text(encoding='utf-8'))
    masks, scores = [], []
    for entry in entries:
        packed = entry['segmentation']
        if isinstance(packed['counts'], list):
            packed = run_lengths.frPyObjects(packed, *packed['size'])
        masks.append(run_lengths.decode(packed).astype(bool))
        scores.append(entry.get('predicted_iou', 1.0))
    if not masks:
        raise ValueError('the list is empty')
    return np.stack(masks), np.asarray(scores, np.float32)


_READERS = {'.npz': _from_npz, '.png': _from_png, '.json': _from_json}
