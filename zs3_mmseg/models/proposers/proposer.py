"""What every proposer promises, and where its masks are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zs3_mmseg.utils.cache import cached_tensors, content_hash

#: Masks ``(M, H, W)`` bool, or these with a score ``(M,)`` for each.
Proposals = Tensor | tuple[Tensor, Tensor]


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

    #: Whether it has to know the file of an image, and not only its pixels.
    needs_meta: bool = False

    def __init__(self, *, cache: bool = True, kept_images: int = 8) -> None:
        if kept_images < 1:
            raise ValueError(f'kept_images must be >= 1, not {kept_images}')
        self.cache = cache
        self.kept_images = kept_images
        self._latest: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Everything beside the image that masks depend on: options, hash of weights.

        Two proposers with the same fingerprint must give the same masks.
        """

    @abstractmethod
    def propose(self, image: Tensor) -> Proposals:
        """Find masks.

        Args:
            image: ``(3, H, W)`` uint8, RGB.

        Returns:
            ``(M, H, W)`` bool; ``M`` may be 0 and masks may overlap. With them, if it
            can tell, how sure it is of each, ``(M,)`` in 0..1; otherwise 1.
        """

    def __call__(self, image: Tensor, meta: Mapping[str, Any] | None = None) -> Tensor:
        """Return the masks of an image, found now or earlier.

        Args:
            image: ``(3, H, W)``, RGB, values 0..255; rounded to whole values.
            meta: metainfo of the image, for those that read files.

        Returns:
            ``(M, H, W)`` bool, on the image's device.
        """
        return self.scored(image, meta)[0]

    def scored(
        self, image: Tensor, meta: Mapping[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return masks ``(M, H, W)`` and scores ``(M,)``, as :meth:`__call__` does."""
        pixels = image.round().clamp(0, 255).to(torch.uint8)
        raw = pixels.permute(1, 2, 0).cpu().numpy()
        kind = type(self).__name__
        key = content_hash(kind, self.fingerprint, str(raw.shape), raw.tobytes())
        found = self._latest.pop(key, None)
        if found is None:
            found = self._found(pixels, key)
        self._latest[key] = found
        while len(self._latest) > self.kept_images:
            self._latest.popitem(last=False)
        masks, scores = found
        return masks.to(image.device), scores.to(image.device)

    def _found(self, pixels: Tensor, key: str) -> tuple[Tensor, Tensor]:
        """Return masks and scores on the CPU, from the disk or from the image."""
        size = pixels.shape[-2:]

        def packed() -> dict[str, Tensor]:
            masks, scores = self._checked(self.propose(pixels), size)
            bits = np.packbits(masks.flatten(1).cpu().numpy(), axis=1)
            return {'bits': torch.from_numpy(bits), 'scores': scores.float().cpu()}

        row = -(-size.numel() // 8)

        def complaint(tensors: dict[str, Tensor]) -> str | None:
            bits, scores = tensors.get('bits'), tensors.get('scores')
            if bits is None or bits.dtype != torch.uint8 or bits.ndim != 2:
                return 'it holds no masks'
            if bits.shape[1] != row:
                return 'it holds masks of another size'
            fits = scores is not None and scores.shape == bits.shape[:1]
            return None if fits else 'it holds no scores'

        tensors = (
            cached_tensors('proposals', key, packed, complaint)
            if self.cache
            else packed()
        )
        flat = np.unpackbits(tensors['bits'].numpy(), axis=1, count=size.numel())
        masks = torch.from_numpy(flat.view(bool)).view(len(flat), *size)
        return masks, tensors['scores']

    def _checked(self, found: Proposals, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Return masks and scores, if they are what :meth:`propose` promises."""
        masks, scores = found if isinstance(found, tuple) else (found, None)
        if masks.dtype != torch.bool or masks.shape[1:] != size:
            raise ValueError(
                f'{type(self).__name__}.propose returned {masks.dtype} of shape '
                f'{tuple(masks.shape)}, expected bool masks (M, {size[0]}, {size[1]})'
            )
        if scores is None:
            return masks, torch.ones(len(masks))
        if scores.shape != masks.shape[:1]:
            raise ValueError(
                f'{type(self).__name__}.propose returned scores of shape '
                f'{tuple(scores.shape)} for {len(masks)} masks'
            )
        return masks, scores


def at_size(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring masks ``(M, H, W)`` to a size, pixel by pixel."""
    if tuple(masks.shape[1:]) == size:
        return masks
    rows, columns = (
        ((torch.arange(new) + 0.5) * old / new).long().to(masks.device)
        for new, old in zip(size, masks.shape[1:], strict=True)
    )
    return masks[:, rows][:, :, columns]


def weights_hash(network: nn.Module) -> str:
    """Return a hash of what a network is and of its weights, for fingerprints."""
    parts: list[bytes | str] = [repr(network)]
    for key, value in network.state_dict().items():
        if isinstance(value, Tensor):
            parts += [key, value.detach().cpu().float().numpy().tobytes()]
    return content_hash(*parts)
