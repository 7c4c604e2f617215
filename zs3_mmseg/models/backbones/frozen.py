"""What never learns: any backbone, and batch norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

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


@MODELS.register_module('FrozenBN')
class FrozenBatchNorm(nn.Module):
    """A batch norm whose statistics, scale and shift are constants (buffers).

    ``y = x w + (b - mean w)`` with ``w = weight / sqrt(var + eps)``, a product and a
    sum, as networks of detectron2 have it; a plain norm in evaluation mode gives the
    same but for rounding. For backbones of mmseg: ``norm_cfg=dict(type='FrozenBN')``.

    Args:
        num_features: channels.
        eps: added to the variance.
    """

    #: What backbones call their norms of this kind.
    _abbr_ = 'bn'
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (
            ('weight', 1.0),
            ('bias', 0.0),
            ('running_mean', 0.0),
            ('running_var', 1.0),
        ):
            self.register_buffer(name, torch.full((num_features,), value))

    def forward(self, maps: Tensor) -> Tensor:
        """Return normalised maps ``(N, C, h, w)``."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return maps * scale[:, None, None] + shift[:, None, None]
