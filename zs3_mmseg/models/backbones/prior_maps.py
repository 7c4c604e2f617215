"""How much each patch looks like a prototype (ESDA, 10.1016/j.imavis.2025.105456)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Constants of the official code, which keep the quotients below finite.
_AREA_EPS = 5e-4
_EPS = 1e-7


def prior_map(patches: Tensor, prototype: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return cosines of patches and prototype, stretched to 0..1 in each image.

    Computed in float32 under autocast as well. A prototype of zeros gives zeros.

    Args:
        patches: ``(N, hw, D)``.
        prototype: ``(N, D)``.
        grid: ``(h, w)``.

    Returns:
        ``(N, 1, h, w)``.
    """
    with torch.autocast(patches.device.type, enabled=False):
        patches, prototype = patches.float(), prototype.float()
        products = (patches @ prototype.unsqueeze(-1)).squeeze(-1)  # (N, hw)
        lengths = patches.norm(dim=-1) * prototype.norm(dim=-1, keepdim=True)
        cosines = products / (lengths + _EPS)
        low = cosines.amin(dim=1, keepdim=True)
        high = cosines.amax(dim=1, keepdim=True)
        stretched = (cosines - low) / (high - low + _EPS)
    return stretched.unflatten(1, grid).unsqueeze(1)


def masked_prototype(patches: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of patches: ``(N, hw, D), (N, hw) -> (N, D)``."""
    with torch.autocast(patches.device.type, enabled=False):
        weights = weights.float().unsqueeze(1)  # (N, 1, hw)
        total = (weights @ patches.float()).squeeze(1)
        return total / (weights.sum(dim=-1) + _AREA_EPS)


def patch_weights(foreground: Tensor, grid: tuple[int, int]) -> Tensor:
    """Shrink a mask to the patches, with aligned corners as in the official code.

    Args:
        foreground: ``(N, H, W)``, bool or numbers in 0..1.
        grid: ``(h, w)``.

    Returns:
        ``(N, hw)``, values in 0..1.
    """
    maps = foreground.float().unsqueeze(1)
    small = F.interpolate(maps, size=grid, mode='bilinear', align_corners=True)
    return small.flatten(1)
