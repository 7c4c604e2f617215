"""Bilinear resizing of maps, by the kernel of torch or by two matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]
#: With more multiplications for each pixel of the result, products are slower than the
#: four neighbours that a bilinear resize reads (``benchmarks/training_step.py``).
MOST_PRODUCTS = 100


def resize_maps(maps: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Resize ``(N, C, h, w)`` bilinearly; maps of that size are returned as they are.

    Each channel's result is the same whatever channels are resized with it.
    """
    # A graph for every size has no branch for one of them.
    if not torch.compiler.is_exporting() and tuple(maps.shape[-2:]) == tuple(size):
        return maps
    # Slices of one channel could otherwise pass for channels-last, whose kernel
    # rounds differently.
    maps = maps.contiguous(memory_format=torch.contiguous_format)
    return F.interpolate(
        maps, size=tuple(size), mode='bilinear', align_corners=align_corners
    )


def cut_maps(maps: Tensor, size: Size) -> Tensor:
    """Return the top left corner of maps ``(..., H, W)``, of a size."""
    if torch.compiler.is_exporting():
        # Of a view it would become part of the graph whether it is all there is.
        height, width = maps.shape[-2:]
        return F.pad(maps, (0, size[1] - width, 0, size[0] - height))
    return maps[..., : size[0], : size[1]]


def resize_by_products(
    maps: Tensor, size: Sequence[int], align_corners: bool
) -> Tensor:
    """Resize ``(N, C, h, w)`` as :func:`resize_maps` does, but for the last digit.

    Bilinear interpolation is the same for all rows and for all columns, ``A X B^T``
    with two small matrices. For maps that are small and become large, two products are
    faster than the kernel of torch on a CPU, forward and backward. The result shares no
    memory with ``maps``, unless they have that size already.
    """
    height, width = maps.shape[-2:]
    if height * (1 + width / size[0]) > MOST_PRODUCTS or (height, width) == tuple(size):
        return resize_maps(maps, size, align_corners)
    rows = _matrix(maps, height, size[0], align_corners)
    columns = _matrix(maps, width, size[1], align_corners)
    return rows @ (maps @ columns.T)


def _matrix(maps: Tensor, before: int, after: int, align_corners: bool) -> Tensor:
    """Return the matrix ``(after, before)`` that resizes one side, made by torch."""
    identity = torch.eye(before, dtype=maps.dtype, device=maps.device)
    return F.interpolate(
        identity[None], size=after, mode='linear', align_corners=align_corners
    )[0].T
