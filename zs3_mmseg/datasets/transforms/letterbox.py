"""A whole image on a square canvas, as few-shot segmentation codes test."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from zs3_mmseg.utils.labels import IGNORE_INDEX

#: Both sides of the resized image are cut down to a multiple of this.
_STEP = 8


@TRANSFORMS.register_module()
class LetterboxResize(BaseTransform):
    """Fit the image into the top left corner of a square canvas.

    The long side becomes ``size``, the other side keeps the ratio; both are then cut
    down to a multiple of 8, so the ratio may be slightly off, as it is in the official
    code of BAM and ESDA. The image is resized bilinearly in floating point, which
    keeps values that 8 bits would round, the label map by nearest neighbour.

    ``canvas_shape`` is the size of the canvas in pixels of the original image, a
    square of its long side. Scores are resized to it and cut to the image; the key
    must be among the ``meta_keys`` of ``PackSegInputs``.

    Args:
        size: side of the canvas in pixels, at least 8.
        pad_val: value of the canvas where there is no image, before normalisation.
        seg_pad_val: label of the canvas where there is no image.

    Raises:
        ValueError: if ``size`` is below 8; in use, if a side would become 0.
    """

    def __init__(
        self, size: int, *, pad_val: float = 0, seg_pad_val: int = IGNORE_INDEX
    ) -> None:
        if size < _STEP:
            raise ValueError(f'LetterboxResize.size must be >= {_STEP}, got {size}')
        self.size = size
        self.pad_val = pad_val
        self.seg_pad_val = seg_pad_val

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize ``img`` and, if there are any, the maps of ``seg_fields``."""
        height, width = results['img'].shape[:2]
        long_side = max(height, width)
        new_h, new_w = (
            side * self.size // long_side // _STEP * _STEP for side in (height, width)
        )
        if not (new_h and new_w):
            raise ValueError(
                f'{results.get("img_path", "an image")} of {width} x {height} pixels '
                f'is too narrow for LetterboxResize(size={self.size})'
            )
        image = results['img'].astype(np.float32)
        image = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
        results['img'] = self._on_canvas(image, self.pad_val)
        for key in results.get('seg_fields', ()):
            labels = results[key]
            resized = cv2.resize(
                labels, (new_w, new_h), interpolation=cv2.INTER_NEAREST
            )
            results[key] = self._on_canvas(resized, self.seg_pad_val)
        results['img_shape'] = results['pad_shape'] = (self.size, self.size)
        results['scale_factor'] = (new_w / width, new_h / height)
        results['keep_ratio'] = True
        results['canvas_shape'] = (long_side, long_side)
        return results

    def _on_canvas(self, picture: np.ndarray, value: float) -> np.ndarray:
        canvas = np.full(
            (self.size, self.size, *picture.shape[2:]), value, dtype=picture.dtype
        )
        canvas[: picture.shape[0], : picture.shape[1]] = picture
        return canvas

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(size={self.size}, pad_val={self.pad_val}, '
            f'seg_pad_val={self.seg_pad_val})'
        )
