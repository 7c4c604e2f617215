"""Position embeddings of a ViT at another grid size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: Ways to resize position embeddings.
INTERPOLATIONS = ('bicubic', 'bilinear')


def resize_positions(
    positions: Tensor,
    grid: tuple[int, int],
    old_grid: tuple[int, int] | None = None,
    mode: str = 'bicubic',
) -> Tensor:
    """Resize position embeddings to another grid of patches.

    The row of the class token is kept. Patches are resized in float32, without
    anti-aliasing and with ``align_corners=False``, as ZegCLIP does with ``bilinear``
    and as is usual for CLIP with ``bicubic``.

    Args:
        positions: ``(1 + h' * w', D)``, the class token first, then rows of patches.
        grid: the wanted ``(h, w)``.
        old_grid: ``(h', w')``; None: a square.
        mode: ``'bicubic'`` or ``'bilinear'``.

    Returns:
        ``(1 + h * w, D)`` of the dtype of ``positions``.
    """
    if old_grid is None:
        side = math.isqrt(positions.shape[0] - 1)
        old_grid = (side, side)
    # A graph for every size has no branch for one of them.
    if not torch.compiler.is_exporting() and tuple(grid) == tuple(old_grid):
        return positions
    token, patches = positions[:1], positions[1:]
    maps = patches.float().reshape(1, *old_grid, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=grid, mode=mode, align_corners=False)
    rows = maps.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)
    return torch.cat([token, rows.to(positions.dtype)])
