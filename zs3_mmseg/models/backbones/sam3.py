"""SAM 3's image encoder, through ``transformers``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmengine.model import BaseModule
from mmseg.registry import MODELS

from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.transformers_models import load_pretrained


@MODELS.register_module()
class SAM3Backbone(BaseModule):
    """The image half of SAM 3 (arXiv 2511.16719): a ViT and maps of three sizes.

    It takes images of one size, that of its weights (1008 x 1008 of the released ones),
    stretched to it, with values in -1..1. ``SAM3Head`` reads the maps. Nothing is
    trained.

    Needs ``transformers``, the extra ``[masks]``. The released weights have a licence
    of their own, and access to them is asked for at the hub.

    Args:
        weights: a repository of the hub, or a folder as ``save_pretrained`` writes it.

    Raises:
        ModuleNotFoundError: without ``transformers``.
        FileNotFoundError: if a folder does not exist.
        ConnectionError: if the hub is out of reach.
    """

    grid_mode = 'pad'
    out_global = False

    def __init__(self, weights: str | Path = 'facebook/sam3') -> None:
        super().__init__()
        model = load_pretrained('Sam3Model', weights, 'SAM3Backbone.weights')
        self.encoder: Any = model.vision_encoder.eval()
        config = model.config.vision_config
        side = config.backbone_config.image_size
        self.image_size = (side, side) if isinstance(side, int) else tuple(side)
        self.patch_size = int(config.backbone_config.patch_size)
        # The coarsest map is for tracking.
        self.out_channels = [config.fpn_hidden_size] * (len(config.scale_factors) - 1)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> SAM3Backbone:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, img: Tensor) -> tuple[Tensor, ...]:
        """Return maps ``(N, C, h, w)``, fine to coarse, of images ``(N, 3, H, W)``."""
        size = (img.shape[2], img.shape[3])
        if size != self.image_size:
            height, width = self.image_size
            raise ConfigError(
                f'SAM3Backbone takes images of {width} x {height} pixels, and got '
                f'{size[1]} x {size[0]}: set dict(type="Resize", scale=({width}, '
                f'{height}), keep_ratio=False) in the pipeline, and test_cfg.mode to '
                '"whole"'
            )
        return tuple(self.encoder(img).fpn_hidden_states[:-1])
