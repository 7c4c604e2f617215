"""A random crop that keeps the named class in view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from zs3_mmseg.utils.labels import IGNORE_INDEX


@TRANSFORMS.register_module()
class ForegroundCrop(BaseTransform):
    """Crop to a fixed size; draw again while too much foreground is lost.

    Smaller images are first padded on all sides. Foreground is label 1, as
    :class:`~zs3_mmseg.datasets.ClassPromptDataset` writes it. After ``max_draws``
    places the last one is taken. The official code of BAM and ESDA does the same with
    85 % and 32 places, the first and 31 others.

    Args:
        size: height and width of the crop in pixels.
        min_kept: share of the foreground pixels that a crop has to keep.
        max_draws: how many places are tried.
        pad_val: value(s) of padded image pixels, in the order of the channels of
            ``img`` (BGR after ``LoadImageFromFile``).
        seg_pad_val: label of padded pixels.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        size: Sequence[int],
        *,
        min_kept: float = 0.85,
        max_draws: int = 32,
        pad_val: float | Sequence[float] = 0,
        seg_pad_val: int = IGNORE_INDEX,
    ) -> None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f'ForegroundCrop.size must be two sizes, got {size}')
        if not 0 <= min_kept <= 1 or max_draws < 1:
            raise ValueError(
                'ForegroundCrop needs min_kept in 0..1 and max_draws >= 1, got '
                f'{min_kept} and {max_draws}'
            )
        self.size = (int(size[0]), int(size[1]))
        self.min_kept = min_kept
        self.max_draws = max_draws
        self.pad_val = pad_val
        self.seg_pad_val = seg_pad_val

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pad and crop ``img`` and the maps of ``seg_fields``."""
        results['img'] = self._padded(results['img'], self.pad_val)
        for key in results.get('seg_fields', ()):
            results[key] = self._padded(results[key], self.seg_pad_val)
        window = self._window(results['gt_seg_map'])
        for key in ('img', *results.get('seg_fields', ())):
            results[key] = results[key][window]
        results['img_shape'] = results['img'].shape[:2]
        return results

    def _padded(
        self, picture: np.ndarray, value: float | Sequence[float]
    ) -> np.ndarray:
        spare = [max(s - p, 0) for s, p in zip(self.size, picture.shape, strict=False)]
        if not any(spare):
            return picture
        (top, left), (down, right) = zip(
            *((s // 2, s - s // 2) for s in spare), strict=True
        )
        colour = value if isinstance(value, Sequence) else [value] * 3
        return cv2.copyMakeBorder(
            picture, top, down, left, right, cv2.BORDER_CONSTANT, value=list(colour)
        )

    def _window(self, labels: np.ndarray) -> tuple[slice, slice]:
        foreground = labels == 1
        needed = self.min_kept * foreground.sum()
        for _ in range(self.max_draws):
            rows, columns = (
                slice(start, start + side)
                for start, side in zip(self._corner(labels), self.size, strict=True)
            )
            if foreground[rows, columns].sum() >= needed:
                break
        return rows, columns

    def _corner(self, labels: np.ndarray) -> list[int]:
        return [
            int(np.random.randint(whole - side + 1))  # noqa: NPY002
            for whole, side in zip(labels.shape, self.size, strict=True)
        ]

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(size={self.size}, min_kept={self.min_kept}, '
            f'max_draws={self.max_draws})'
        )
