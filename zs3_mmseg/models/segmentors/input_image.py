"""The image as a head, a region classifier or a post-processor may ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zs3_mmseg.models.resize import Size

from .inference import Window, undo_flip, window_of


@dataclass(frozen=True)
class InputImage:
    """Images at network input size before any normalisation.

    Attributes:
        pixels: ``(N, 3, H, W)`` float, RGB, 0..255; 0 in what was padded.
        valid: ``(N, 2)`` long, height and width without padding at the bottom and
            right.
        wholes: ``(N', 3, H', W')``, the same of the whole images, if ``pixels`` are
            windows of them, window by window; else the same tensor.
        whole_sizes: ``(N', 2)`` long, the valid sizes of ``wholes``.
        windows: where the windows lie; None is the whole image.
        metas: metainfo of the whole images.
        covered_size: height and width that the backbone's maps stand for, which is more
            than those of ``pixels`` if it fills pictures up to whole patches. None:
            the same.
    """

    pixels: Tensor
    valid: Tensor
    wholes: Tensor
    whole_sizes: Tensor
    windows: tuple[Window | None, ...]
    metas: tuple[Mapping[str, Any], ...]
    covered_size: Size | None = None

    @property
    def covered(self) -> Tensor:
        """``(N, 3, H, W)``: ``pixels``, their border repeated up to covered size."""
        if self.covered_size is None:
            return self.pixels
        height, width = self.pixels.shape[2:]
        missing = (0, self.covered_size[1] - width, 0, self.covered_size[0] - height)
        return F.pad(self.pixels, missing, mode='replicate')

    def proposals(self, propose: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Return masks of each of the ``N`` pictures, found in the whole images.

        An image is shown once, upright and without padding, whatever windows and flips
        the network gets; its masks are mirrored and cut as they are.

        Args:
            propose: from ``(3, h, w)`` to ``(M, h, w)`` bool, such as a
                :class:`~zs3_mmseg.models.proposers.Proposer`.

        Returns:
            ``N`` masks ``(M, H, W)`` bool, with an ``M`` for each image.
        """
        found = []
        for whole, size, meta in zip(
            self.wholes, self.whole_sizes.tolist(), self.metas, strict=True
        ):
            picture = undo_flip(whole[:, : size[0], : size[1]], meta)
            masks = undo_flip(propose(picture), meta)  # a flip undoes itself
            missing = (0, whole.shape[2] - size[1], 0, whole.shape[1] - size[0])
            found.append(F.pad(masks, missing) if any(missing) else masks)
        return [window_of(masks, w) for w in self.windows for masks in found]


def input_image(
    inputs: Tensor,
    metas: Sequence[Mapping[str, Any]],
    preprocessor: Any,
    windows: Sequence[Window | None] = (None,),
    covered: Size | None = None,
) -> InputImage:
    """Undo what a data preprocessor did to inputs.

    Images are taken for BGR where it did not swap their channels, as mmcv loads them.

    Args:
        inputs: ``(N, 3, H, W)``, whole images.
        metas: their metainfo.
        preprocessor: what normalised them.
        windows: which windows of them the network gets.
        covered: what the backbone's maps of an image or window stand for.
    """
    wholes = inputs.float()
    if getattr(preprocessor, '_enable_normalize', False):
        wholes = wholes * preprocessor.std + preprocessor.mean
    if not getattr(preprocessor, '_channel_conversion', False):
        wholes = wholes.flip(1)
    wholes = wholes.clamp(0, 255)
    sizes: list[tuple[int, int]] = []
    for image, meta in zip(wholes, metas, strict=True):
        padding = meta.get('img_padding_size', meta.get('padding_size', (0,) * 4))
        rows, columns = image.shape[1] - padding[3], image.shape[2] - padding[1]
        image[:, rows:] = 0
        image[:, :, columns:] = 0
        sizes.append((rows, columns))
    whole_sizes = torch.tensor(sizes, device=inputs.device)
    pixels, valid = wholes, whole_sizes
    if windows[0] is not None:
        pixels = torch.cat([window_of(wholes, window) for window in windows])
        corners = [[w.top, w.left] for w in windows if w is not None]
        starts = whole_sizes.new_tensor(corners)[:, None]  # (G, 1, 2)
        crop = whole_sizes.new_tensor(pixels.shape[2:])
        valid = (whole_sizes - starts).clamp(min=0).minimum(crop).flatten(0, 1)
    return InputImage(
        pixels, valid, wholes, whole_sizes, tuple(windows), tuple(metas), covered
    )
