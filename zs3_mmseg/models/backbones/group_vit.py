"""GroupViT: a vision transformer whose group tokens gather patches into segments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmengine.model import BaseModule
from mmseg.registry import MODELS

from zs3_mmseg.utils.transformers_models import load_pretrained

from .blocks import whole_patches
from .outputs import TowerOutput


@MODELS.register_module()
class GroupViTBackbone(BaseModule):
    r"""The image half of a trained GroupViT (arXiv 2202.11094), through transformers.

    Group tokens absorb the patches in stages; with the assignment :math:`A^l` of what
    stage :math:`l` gets to its groups, the map of a group is its column of
    :math:`A^1 A^2 \cdots` over the patches. It is a ``TowerOutput``: the maps of the
    last stage's groups ``(N, G, h, w)``, which sum to 1, their tokens ``(N, G, E)`` in
    the space of GroupViT's own texts, and the token of the image ``(N, E)``. Positions
    are resized to the image, which is filled up to whole patches. Nothing is trained.

    Needs ``transformers``, the extra ``[masks]``. The original weights have a licence
    for non-commercial use.

    Args:
        weights: a repository of the hub, or a folder as ``save_pretrained`` writes it.

    Raises:
        ModuleNotFoundError: without ``transformers``.
        FileNotFoundError: if a folder does not exist.
        ConnectionError: if the hub is out of reach.
    """

    grid_mode = 'pad'
    out_global = True

    def __init__(self, weights: str | Path = 'nvidia/groupvit-gcc-yfcc') -> None:
        super().__init__()
        model = load_pretrained(
            'GroupViTModel', weights, 'GroupViTBackbone.weights'
        ).eval()
        self.vision: Any = model.vision_model
        self.projection = model.visual_projection
        #: The factor on cosines that it learned.
        self.scale = float(model.logit_scale.detach().exp())
        config = model.config.vision_config
        self.patch_size = int(config.patch_size)
        # Stages without group tokens, as the last one, group nothing.
        pairs = zip(config.num_group_tokens, config.num_output_groups, strict=True)
        self.out_channels = [[int(groups) for held, groups in pairs if held][-1]]
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> GroupViTBackbone:
        """Stay in evaluation mode: training draws assignments at random."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, img: Tensor) -> TowerOutput:
        """Return groups of images ``(N, 3, H, W)``, normalised as for ImageNet."""
        img = whole_patches(img, self.patch_size, 'pad')
        grid = (img.shape[2] // self.patch_size, img.shape[3] // self.patch_size)
        tokens = self.vision.embeddings(img, interpolate_pos_encoding=True)
        encoded = self.vision.encoder(tokens, output_attentions=True, return_dict=True)
        last = self.vision.layernorm(encoded.last_hidden_state)
        groups: Tensor | None = None
        for assigned in encoded.attentions:  # (N, groups, tokens before)
            share = assigned.transpose(1, 2)
            groups = share if groups is None else groups @ share
        assert groups is not None  # there is at least one stage
        maps = groups.transpose(1, 2).unflatten(2, grid)
        return TowerOutput(
            (maps,),
            self._projected(last.mean(dim=1)),
            group_tokens=self._projected(last.flatten(0, 1)).view(*last.shape[:2], -1),
        )

    def _projected(self, tokens: Tensor) -> Tensor:
        """Return unit vectors ``(B, E)`` in the space of the texts."""
        return F.normalize(self.projection(tokens), dim=-1)
