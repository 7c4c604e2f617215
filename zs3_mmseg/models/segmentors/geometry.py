"""Where maps lie on images: windows, patch grids, padding, flips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]


class Window(NamedTuple):
    """A crop: rows ``top..bottom`` and columns ``left..right`` of the image."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window in the last two dimensions."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def slide_windows(image: Size, crop: Size, stride: Size) -> list[Window]:
    """Place windows of one size over an image, as mmseg's slide inference does.

    The last row and column of windows are moved back to end at the border. A crop
    larger than the image is cut down to it.
    """
    (height, width), (crop_h, crop_w), (stride_h, stride_w) = image, crop, stride
    tops = range(0, max(height - crop_h + stride_h - 1, 0) // stride_h + 1)
    lefts = range(0, max(width - crop_w + stride_w - 1, 0) // stride_w + 1)
    windows = []
    for row in tops:
        for column in lefts:
            bottom = min(row * stride_h + crop_h, height)
            right = min(column * stride_w + crop_w, width)
            windows.append(
                Window(max(bottom - crop_h, 0), bottom, max(right - crop_w, 0), right)
            )
    return windows


def window_counts(image: Size, windows: list[Window]) -> Tensor:
    """Return how many windows cover each pixel, ``(H, W)`` float32, all >= 1."""
    counts = torch.zeros(image)
    for window in windows:
        counts[window.slices] += 1
    return counts


def covered_size(backbone: nn.Module, image: Size) -> Size:
    """Return the size in pixels that a backbone's maps stand for.

    A backbone with ``grid_mode='pad'`` fills the image up to whole patches at the
    bottom and right, and its maps cover what it filled up to. Maps of any other
    backbone are taken to cover the image, as mmseg does.
    """
    if getattr(backbone, 'grid_mode', None) != 'pad':
        return image
    patch = int(backbone.patch_size)  # type: ignore[arg-type]
    return (-(-image[0] // patch) * patch, -(-image[1] // patch) * patch)


def resize_maps(maps: Tensor, size: Size, align_corners: bool) -> Tensor:
    """Resize ``(N, C, h, w)`` bilinearly; maps of that size are returned as they are.

    Each channel's result is the same whatever channels are resized with it.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    # Slices of one channel could otherwise pass for channels-last, whose kernel
    # rounds differently.
    maps = maps.contiguous(memory_format=torch.contiguous_format)
    return F.interpolate(maps, size=size, mode='bilinear', align_corners=align_corners)


def upright(scores: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Undo the padding and the flip of a test pipeline.

    Args:
        scores: ``(1, C, H, W)`` at input size.
        meta: the sample's metainfo; ``img_padding_size`` or ``padding_size`` is
            (left, right, top, bottom).

    Returns:
        ``(1, C, H', W')``.

    Raises:
        ValueError: for a flip direction that is not known.
    """
    padding = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
    left, right, top, bottom = padding
    height, width = scores.shape[-2:]
    scores = scores[..., top : height - bottom, left : width - right]
    if meta.get('flip'):
        scores = scores.flip(dims=_flipped_dims(meta.get('flip_direction')))
    return scores


def original_size(meta: Mapping[str, Any]) -> Size:
    """Return height and width of the image file."""
    return tuple(meta['ori_shape'][:2])


def canvas_size(meta: Mapping[str, Any]) -> Size:
    """Return the size, in pixels of the image file, that an upright input stands for.

    That is the image itself, unless it lies in the top left corner of a canvas
    (``canvas_shape``, see :class:`~zs3_mmseg.datasets.transforms.LetterboxResize`).
    """
    return tuple(meta.get('canvas_shape', meta['ori_shape'])[:2])


def cut_to_image(maps: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Cut maps ``(..., H, W)`` of a canvas down to the image in its corner."""
    height, width = original_size(meta)
    return maps[..., :height, :width]


def to_original(scores: Tensor, meta: Mapping[str, Any], align_corners: bool) -> Tensor:
    """Bring ``(1, C, H, W)`` from input size to ``(1, C, H', W')`` of the image file.

    Padding and flip are undone, and what lies beyond the image on a canvas is cut.
    """
    own = resize_maps(upright(scores, meta), canvas_size(meta), align_corners)
    return cut_to_image(own, meta)


def _flipped_dims(direction: str | None) -> tuple[int, ...]:
    known = {'horizontal': (3,), 'vertical': (2,), 'diagonal': (2, 3)}
    if direction not in known:
        raise ValueError(
            f'flip_direction={direction!r} is unknown; known: {", ".join(known)}'
        )
    return known[direction]
