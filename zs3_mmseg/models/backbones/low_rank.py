"""Trained paths of low rank around the blocks of a frozen tower."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LowRankBypass(nn.Module):
    """A linear path around a block: ``y = block(x) + (x A) B``.

    ESDA (doi 10.1016/j.imavis.2025.105456) puts one of rank 2 around each block of a
    frozen CLIP. ``B`` starts at zero, so that nothing changes before training.

    Args:
        width: channels ``D`` of the tokens.
        rank: columns of ``A``, at least 1.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f'low_rank is a rank of at least 1 or None, not {rank}')
        self.down = nn.Parameter(torch.randn(width, rank))
        self.up = nn.Parameter(torch.zeros(rank, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what is added to the block's output: ``(N, L, D) -> (N, L, D)``."""
        return tokens @ self.down @ self.up
