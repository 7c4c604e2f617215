"""A toy of extra tokens: one for each half of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.models.backbones import ExtraTokens


@MODELS.register_module()
class LeftAndRight(ExtraTokens):
    """Two tokens that see themselves, the class token and their half; patches see both.

    The class token and prompts see neither.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(2, **options)

    def mask(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """Return who sees whom, ``(1 + h * w + 2,) * 2`` bool."""
        height, width = grid
        left = (torch.arange(width, device=device) < width / 2).repeat(height)
        mask = torch.ones(2 * (1 + len(left) + 2,), dtype=torch.bool, device=device)
        mask[0, -2:] = False
        mask[-2, 1:-2], mask[-1, 1:-2] = left, ~left
        mask[-2, -1] = mask[-1, -2] = False
        return mask
