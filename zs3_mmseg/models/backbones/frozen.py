"""Any backbone as a fixed extractor of features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmengine.model import BaseModule
from mmseg.registry import MODELS


@MODELS.register_module()
class FrozenBackbone(BaseModule):
    """A backbone of mmseg, mmpretrain or timm that never learns.

    Its parameters get no gradient and it stays in evaluation mode: no dropout, and
    norms keep their statistics. Not every backbone has ``frozen_stages`` and
    ``norm_eval`` of its own, and a learning rate of 0 leaves the statistics moving.

    Args:
        backbone: config of the backbone, with its pretrained weights.
        init_cfg: see mmengine's ``BaseModule``.
    """

    def __init__(self, backbone: Mapping[str, Any], init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.backbone = MODELS.build(backbone)
        self.backbone.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Switch the mode of nothing but this wrapper."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, img: Tensor) -> tuple[Tensor, ...]:
        """Return its maps ``(N, C, h, w)`` of images ``(N, 3, H, W)``."""
        return tuple(self.backbone(img))
