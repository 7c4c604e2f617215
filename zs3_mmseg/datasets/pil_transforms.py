"""Transforms of published recipes that PIL does, with draws of Python's generator."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmseg.registry import TRANSFORMS

from zs3_mmseg.utils.labels import IGNORE_INDEX

__all__ = ['PILRandomRotate', 'PILRandomScale']


def _by_pil(picture: np.ndarray, change: Any) -> np.ndarray:
    return np.asarray(change(Image.fromarray(picture))).copy()


@TRANSFORMS.register_module()
class PILRandomRotate(BaseTransform):
    """Rotate by a whole number of degrees, with reflections of the image around it.

    The image is mirrored at its borders (the top and left row without the border pixel
    itself, as in the released code of DRN), rotated bilinearly about its centre and cut
    to its size; label maps are rotated by nearest neighbour.

    Args:
        degree: largest angle; all whole angles up to it are equally likely.
        seg_pad_val: label of what comes from outside.

    Raises:
        ValueError: if ``degree`` is negative or above 45.
    """

    def __init__(self, degree: int = 10, *, seg_pad_val: int = IGNORE_INDEX) -> None:
        if not 0 <= degree <= 45:
            raise ValueError(f'PILRandomRotate.degree must be in 0..45, got {degree}')
        self.degree = degree
        self.seg_pad_val = seg_pad_val

    @cache_randomness
    def _angle(self) -> int:
        return random.randint(0, 2 * self.degree) - self.degree

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Rotate ``img`` (H, W, 3) uint8 and the maps of ``seg_fields``."""
        angle = self._angle()
        height, width = results['img'].shape[:2]
        window = (width, height, 2 * width, 2 * height)

        def rotated(picture: np.ndarray, resample: Image.Resampling) -> np.ndarray:
            return _by_pil(
                picture, lambda image: image.rotate(angle, resample).crop(window)
            )

        sides = ((height, height), (width, width))
        before = [(first, 0) for first, _ in sides]
        after = [(0, last) for _, last in sides]
        image = results['img']
        image = np.pad(image, [*before, (0, 0)], mode='reflect')
        image = np.pad(image, [*after, (0, 0)], mode='symmetric')
        results['img'] = rotated(image, Image.Resampling.BILINEAR)
        for key in results.get('seg_fields', ()):
            labels = np.pad(results[key], sides, constant_values=self.seg_pad_val)
            results[key] = rotated(labels, Image.Resampling.NEAREST)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(degree={self.degree})'


@TRANSFORMS.register_module()
class PILRandomScale(BaseTransform):
    """Scale image and label maps by a random factor of their own size, with PIL.

    Smaller images are made with a Lanczos filter, larger ones with a bicubic one;
    label maps by nearest neighbour. Sizes are cut down to whole pixels.

    Args:
        ratio_range: smallest and largest factor.

    Raises:
        ValueError: unless 0 < smallest <= largest.
    """

    def __init__(self, ratio_range: Sequence[float] = (0.5, 2.0)) -> None:
        low, high = ratio_range
        if not 0 < low <= high:
            raise ValueError(
                f'PILRandomScale.ratio_range must be two ascending factors above 0, '
                f'got {tuple(ratio_range)}'
            )
        self.ratio_range = (low, high)

    @cache_randomness
    def _factor(self) -> float:
        return random.uniform(*self.ratio_range)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize ``img`` (H, W, 3) uint8 and the maps of ``seg_fields``."""
        factor = self._factor()
        height, width = results['img'].shape[:2]
        size = max(int(factor * width), 1), max(int(factor * height), 1)
        shrinks = factor < 1
        kind = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
        results['img'] = _by_pil(results['img'], lambda image: image.resize(size, kind))
        for key in results.get('seg_fields', ()):
            results[key] = _by_pil(
                results[key],
                lambda image: image.resize(size, Image.Resampling.NEAREST),
            )
        results['img_shape'] = results['img'].shape[:2]
        results['scale_factor'] = (size[0] / width, size[1] / height)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(ratio_range={self.ratio_range})'
