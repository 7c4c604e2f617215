"""The random blur of ZS3Net's training images."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomRadiusBlur(BaseTransform):
    """Blur the image by a random radius, at random, as PIL does it.

    Args:
        prob: how often.
        max_radius: of PIL's Gaussian blur, in pixels; radii are drawn evenly from
            [0, ``max_radius``).

    Raises:
        ValueError: if the radius is negative or the probability is none.
    """

    def __init__(self, prob: float = 0.5, max_radius: float = 1.0) -> None:
        if not 0 <= prob <= 1 or max_radius < 0:
            raise ValueError(
                'RandomRadiusBlur needs prob in 0..1 and max_radius >= 0, got '
                f'{prob=} and {max_radius=}'
            )
        self.prob = prob
        self.max_radius = max_radius

    @cache_randomness
    def _radius(self) -> float | None:
        if np.random.random() >= self.prob:  # noqa: NPY002
            return None
        return float(np.random.uniform(0, self.max_radius))  # noqa: NPY002

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Blur ``img`` ``(H, W, 3)`` uint8, or leave it."""
        radius = self._radius()
        if radius is not None:
            blurred = Image.fromarray(results['img']).filter(
                ImageFilter.GaussianBlur(radius)
            )
            results['img'] = np.asarray(blurred).copy()
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob}, max_radius={self.max_radius})'
