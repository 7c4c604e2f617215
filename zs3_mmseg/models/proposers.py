"""Proposers: masks of an image that know no class yet, cached by what the image holds.

Two-stage methods find masks first and name them second. A proposer is the first half;
:mod:`zs3_mmseg.models.region_classifiers` is the second, and
:class:`~zs3_mmseg.models.decode_heads.ProposalHead` puts them together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from zs3_mmseg.utils.cache import cached_tensors, content_hash

__all__ = ['Proposer']


class Proposer(ABC):
    """Finds class-free masks in an image.

    A subclass implements :meth:`propose` and :attr:`fingerprint`, registers itself in
    mmseg's ``MODELS``, and is named in a config as
    ``decode_head=dict(type='ProposalHead', proposer=dict(type=...))``. It is no module:
    networks that it uses are its own affair and reach no checkpoint.

    Masks depend on the image alone, so they are kept on disk, in ``proposals`` of the
    cache directory (``ZS3_MMSEG_CACHE``), under a hash of the pixels and of the
    fingerprint: another picture of the same name, or other options, are another entry.
    The latest images are kept in memory as well, as windows and flips ask again.

    Args:
        cache: whether to keep masks on disk.
        kept_images: how many images' masks stay in memory, >= 1.

    Raises:
        ValueError: if ``kept_images`` is less than 1.
    """

    def __init__(self, *, cache: bool = True, kept_images: int = 8) -> None:
        if kept_images < 1:
            raise ValueError(f'kept_images must be >= 1, not {kept_images}')
        self.cache = cache
        self.kept_images = kept_images
        self._latest: OrderedDict[str, Tensor] = OrderedDict()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Everything beside the image that masks depend on: options, hash of weights.

        Two proposers with the same fingerprint must give the same masks.
        """

    @abstractmethod
    def propose(self, image: Tensor) -> Tensor:
        """Find masks.

        Args:
            image: ``(3, H, W)`` uint8, RGB.

        Returns:
            ``(M, H, W)`` bool; ``M`` may be 0 and masks may overlap.
        """

    def __call__(self, image: Tensor) -> Tensor:
        """Return the masks of an image, found now or earlier.

        Args:
            image: ``(3, H, W)``, RGB, values 0..255; rounded to whole values.

        Returns:
            ``(M, H, W)`` bool, on the image's device.
        """
        pixels = image.round().clamp(0, 255).to(torch.uint8)
        raw = pixels.permute(1, 2, 0).cpu().numpy()
        kind = type(self).__name__
        key = content_hash(kind, self.fingerprint, str(raw.shape), raw.tobytes())
        masks = self._latest.pop(key, None)
        if masks is None:
            masks = self._found(pixels, key)
        self._latest[key] = masks
        while len(self._latest) > self.kept_images:
            self._latest.popitem(last=False)
        return masks.to(image.device)

    def _found(self, pixels: Tensor, key: str) -> Tensor:
        """Return masks ``(M, H, W)`` on the CPU, from the disk or from the image."""
        size = pixels.shape[-2:]

        def packed() -> dict[str, Tensor]:
            masks = self.propose(pixels)
            if masks.dtype != torch.bool or masks.shape[1:] != size:
                raise ValueError(
                    f'{type(self).__name__}.propose returned {masks.dtype} of shape '
                    f'{tuple(masks.shape)}, expected bool masks (M, {size[0]}, '
                    f'{size[1]})'
                )
            bits = np.packbits(masks.flatten(1).cpu().numpy(), axis=1)
            return {'bits': torch.from_numpy(bits)}

        row = -(-size.numel() // 8)

        def complaint(tensors: dict[str, Tensor]) -> str | None:
            bits = tensors.get('bits')
            if bits is not None and bits.dtype == torch.uint8 and bits.ndim == 2:
                return (
                    None if bits.shape[1] == row else 'it holds masks of another size'
                )
            return 'it holds no masks'

        tensors = (
            cached_tensors('proposals', key, packed, complaint)
            if self.cache
            else packed()
        )
        flat = np.unpackbits(tensors['bits'].numpy(), axis=1, count=size.numel())
        return torch.from_numpy(flat.astype(bool)).view(len(flat), *size)
