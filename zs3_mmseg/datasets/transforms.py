"""Transforms of the published recipes that mmseg does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFilter

import mmcv
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmseg.registry import TRANSFORMS

from zs3_mmseg.utils.labels import IGNORE_INDEX
from zs3_mmseg.utils.names import choose

__all__ = [
    'ForegroundCrop',
    'LetterboxResize',
    'RandomGaussianBlur',
    'RandomRadiusBlur',
    'RandomRescale',
    'ScoreAtInputSize',
]


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


@TRANSFORMS.register_module()
class ScoreAtInputSize(BaseTransform):
    """Take the image as it is now for the original, as LSeg's two-word test does.

    Predictions then have the size of the network's input, and so has the label map,
    resized by nearest neighbour: load annotations before this.

    Args:
        backend: what resizes, ``'cv2'`` or ``'pillow'``, as in mmcv's ``Resize``.
    """

    def __init__(self, backend: str = 'cv2') -> None:
        self.backend = choose('ScoreAtInputSize.backend', backend, ('cv2', 'pillow'))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``ori_shape`` and ``gt_seg_map``."""
        height, width = results['img'].shape[:2]
        results['ori_shape'] = (height, width)
        if 'gt_seg_map' in results:
            results['gt_seg_map'] = mmcv.imresize(
                results['gt_seg_map'],
                (width, height),
                interpolation='nearest',
                backend=self.backend,
            )
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(backend={self.backend!r})'
