"""Random changes of ESDA's training images that mmseg has no transform for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomRescale(BaseTransform):
    """Scale image and label maps by a random factor of their own size.

    mmseg's ``RandomResize`` scales by a factor of one fixed size instead.

    Args:
        ratio_range: smallest and largest factor.

    Raises:
        ValueError: unless 0 < smallest <= largest.
    """

    def __init__(self, ratio_range: Sequence[float] = (0.9, 1.1)) -> None:
        low, high = ratio_range
        if not 0 < low <= high:
            raise ValueError(
                f'RandomRescale.ratio_range must be two ascending factors above 0, '
                f'got {tuple(ratio_range)}'
            )
        self.ratio_range = (low, high)

    @cache_randomness
    def _factor(self) -> float:
        return float(np.random.uniform(*self.ratio_range))  # noqa: NPY002

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize ``img`` bilinearly and the maps of ``seg_fields`` by neighbour."""
        factor = self._factor()
        height, width = results['img'].shape[:2]
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        image = cv2.resize(results['img'], size, interpolation=cv2.INTER_LINEAR)
        results['img'] = image
        for key in results.get('seg_fields', ()):
            results[key] = cv2.resize(
                results[key], size, interpolation=cv2.INTER_NEAREST
            )
        results['img_shape'] = image.shape[:2]
        results['scale_factor'] = (size[0] / width, size[1] / height)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(ratio_range={self.ratio_range})'


@TRANSFORMS.register_module()
class RandomGaussianBlur(BaseTransform):
    """Blur the image with a Gaussian, at random.

    Args:
        prob: how often.
        kernel_size: side of the kernel in pixels, odd; its width follows from it as
            OpenCV does it.

    Raises:
        ValueError: if the kernel is even or the probability is none.
    """

    def __init__(self, prob: float = 0.5, kernel_size: int = 5) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'RandomGaussianBlur.prob must be in 0..1, got {prob}')
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f'RandomGaussianBlur.kernel_size must be odd, got {kernel_size}'
            )
        self.prob = prob
        self.kernel_size = kernel_size

    @cache_randomness
    def _blurs(self) -> bool:
        return bool(np.random.random() < self.prob)  # noqa: NPY002

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Blur ``img`` or leave it."""
        if self._blurs():
            side = self.kernel_size
            results['img'] = cv2.GaussianBlur(results['img'], (side, side), 0)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(prob={self.prob}, kernel_size={self.kernel_size})'
        )
