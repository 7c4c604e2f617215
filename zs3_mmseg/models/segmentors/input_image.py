"""The image as a head, a region classifier or a post-processor may ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .inference import Size, Window


@dataclass(frozen=True)
class InputImage:
    """Images at network input size before any normalisation.

    Attributes:
        pixels: ``(N, 3, H, W)`` float, RGB, 0..255; 0 in what was padded.
        valid: ``(N, 2)`` long, height and width without padding at the bottom and
            right.
    """

    pixels: Tensor
    valid: Tensor


def input_image(
    inputs: Tensor,
    metas: Sequence[Mapping[str, Any]],
    preprocessor: Any,
    windows: Sequence[Window | None] = (None,),
    size: Size | None = None,
) -> InputImage:
    """Undo what a data preprocessor did to inputs.

    Images are taken for BGR where it did not swap their channels, as mmcv loads them.

    Args:
        inputs: ``(G * N, 3, H, W)``: ``G`` windows of ``N`` images, window by window.
        metas: of the ``N`` images.
        preprocessor: mmseg's ``SegDataPreProcessor``, or one that changes no values.
        windows: the ``G`` windows; None is the whole image.
        size: of the whole inputs; that of ``inputs`` by default.
    """
    pixels = inputs.float()
    if getattr(preprocessor, '_enable_normalize', False):
        pixels = pixels * preprocessor.std + preprocessor.mean
    if not getattr(preprocessor, '_channel_conversion', False):
        pixels = pixels.flip(1)
    pixels = pixels.clamp(0, 255)
    crop_height, crop_width = inputs.shape[2:]
    height, width = size or (crop_height, crop_width)
    valid: list[tuple[int, int]] = []
    for window in windows:
        top, left = (0, 0) if window is None else (window.top, window.left)
        for meta in metas:
            padding = meta.get('img_padding_size', meta.get('padding_size', (0,) * 4))
            rows = min(max(height - padding[3] - top, 0), crop_height)
            columns = min(max(width - padding[1] - left, 0), crop_width)
            pixels[len(valid), :, rows:] = 0
            pixels[len(valid), :, :, columns:] = 0
            valid.append((rows, columns))
    return InputImage(pixels, torch.tensor(valid, device=inputs.device))
