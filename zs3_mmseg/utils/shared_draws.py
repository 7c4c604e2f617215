"""Random numbers that several processes share as one process would have drawn them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mmengine.dist import get_dist_info


def shared_draw(draw: Callable[..., Tensor], *shape: int, **options: Any) -> Tensor:
    """Draw for the images of all processes and return those of this one.

    Processes whose generators are in step then meet the numbers that one process with
    the whole batch would. As samplers deal out samples in turn, image ``j`` of a
    process is image ``j * world_size + rank`` of the batch.

    Args:
        draw: of torch, such as ``torch.randn``; takes sizes and ``options``.
        shape: of this process's part, images first.
        options: of ``draw``, such as ``device``.
    """
    rank, world_size = get_dist_info()
    return draw(shape[0] * world_size, *shape[1:], **options)[rank::world_size]


class SharedDropout(nn.Module):
    """Dropout of single values by :func:`shared_draw`, with probability ``p``."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f'a probability of dropout is in [0, 1), not {p}')
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """Return ``(N, ...)`` of the same shape."""
        if not (self.training and self.p):
            return values
        kept = shared_draw(torch.rand, *values.shape, device=values.device) >= self.p
        return values * kept / (1 - self.p)

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return f'p={self.p}'
