"""How precisely sums over pixels are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Return values in float32, for which half precision has too few digits.

    What has more digits keeps them.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))
