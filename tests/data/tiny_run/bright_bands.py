"""A proposer that needs no network: bands of brightness."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.models.proposers import Proposer


@MODELS.register_module()
class BrightBands(Proposer):
    """One mask for each of some bands of brightness."""

    def __init__(self, bands: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bands = bands
        self.calls = 0

    @property
    def fingerprint(self) -> str:
        return f'{self.bands} bands'

    def propose(self, image: Tensor) -> Tensor:
        self.calls += 1
        band = image.float().mean(dim=0) * self.bands // 256
        return torch.stack([band == index for index in range(self.bands)])
