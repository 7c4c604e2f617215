"""An image tower of open_clip, block by block, at any image size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.model import BaseModule

from zs3_mmseg.models.towers import Architecture, load_clip, resolve_architecture
from zs3_mmseg.models.towers.positions import check_interpolation

from .blocks import is_plain, replaced_block, run_block, run_first_token
from .last_attention import Vanilla, build_last_attention
from .options import one_of, require_plain_vit
from .stem import embed, resize_stored_positions, whole_patches


class ImageTower(BaseModule):
    """The weights of an open_clip ViT, and the steps that its forward pass consists of.

    The part of :class:`OpenCLIPViT` that holds the tower: from an image to tokens, the
    last block with another attention in it, and from tokens to the space of the texts.
    Its arguments are explained there.
    """

    visual: Any

    def __init__(
        self,
        arch: str | Mapping | Architecture,
        pretrained: str | Path | None,
        *,
        image_size: int | Sequence[int] | None,
        frozen: bool,
        last_attn: str | Mapping,
        last_block: Literal['full', 'attn_only'] | None,
        grid: Literal['pad', 'floor'],
        pos_interp: Literal['bicubic', 'bilinear'],
        cls_embed_twice: bool,
        project: bool,
        normalize: bool,
        trust: bool,
    ) -> None:
        super().__init__()
        one_of('grid', grid, ('pad', 'floor'))
        one_of('last_block', last_block, ('full', 'attn_only', None))
        self.pos_interp = check_interpolation(pos_interp)
        self.grid_mode = grid
        self.last_attn = build_last_attention(last_attn)
        self.full_last_block = (
            self.last_attn.full_block if last_block is None else last_block == 'full'
        )
        self.cls_embed_twice = cls_embed_twice
        self.project = project
        self.normalize = normalize
        self.frozen = frozen

        architecture = resolve_architecture(arch)
        require_plain_vit(architecture)
        clip = load_clip(
            architecture, pretrained, trust=trust, need='image', pos_interp=pos_interp
        )
        # A copy: the model is shared with whoever needs the text tower.
        self.visual = copy.deepcopy(clip.model.visual)
        self.content_hash = clip.content_hash
        #: Statistics of the images, for RGB values in 0..255.
        self.mean = tuple(255 * value for value in clip.mean)
        self.std = tuple(255 * value for value in clip.std)
        self.patch_size = int(self.visual.patch_size[0])
        self.num_blocks = len(self.visual.transformer.resblocks)
        self.width = int(self.visual.conv1.out_channels)
        self.embed_dim = architecture.embed_dim
        self._last_is_vanilla = (
            isinstance(self.last_attn, Vanilla) and self.full_last_block
        )
        if not self._last_is_vanilla and not is_plain(self._blocks[-1]):
            raise ValueError(
                f'arch={architecture.name!r} has custom attention blocks, whose '
                "attention cannot be replaced: expected last_attn='vanilla' with the "
                'full block'
            )
        if image_size is not None:
            resize_stored_positions(self.visual, image_size, pos_interp)
        if frozen:
            self.visual.requires_grad_(False)
        self.train(self.training)

    @property
    def _blocks(self) -> nn.ModuleList:
        return self.visual.transformer.resblocks

    def init_weights(self) -> None:
        """Keep the weights loaded at construction."""
        self._is_init = True

    def train(self, mode: bool = True) -> Any:
        """Switch the mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.visual.eval()
        return self

    @torch.no_grad()
    def image_token(self, img: Tensor) -> Tensor:
        """Return the global token ``(B, E)`` of the tower as CLIP trained it.

        Without prompt tokens, bypasses and class names, so that it can be compared with
        text rows whatever has been trained here.

        Args:
            img: ``(B, 3, H, W)``, normalised RGB.
        """
        tokens, grid = self._embed(img, cls_embed_twice=False)
        for block in self._blocks:
            tokens = run_block(block, tokens)
        return self._pool(tokens, grid[0] * grid[1])

    def _embed(
        self, img: Tensor, cls_embed_twice: bool
    ) -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens before the first block ``(B, 1 + hw, D)`` and the grid."""
        return embed(
            self.visual,
            whole_patches(img, self.patch_size, self.grid_mode),
            pos_interp=self.pos_interp,
            cls_embed_twice=cls_embed_twice,
        )

    def _run_last(
        self, block: nn.Module, tokens: Tensor, grid: tuple[int, int], pooled: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens after the last block, and those that pooling needs.

        Args:
            block: the last block.
            tokens: ``(N, L, D)``.
            grid: ``(h, w)``.
            pooled: whether there will be any pooling.
        """
        if self._last_is_vanilla:
            after = run_block(block, tokens)
            return after, after
        after = replaced_block(
            block,
            tokens,
            lambda q, k, v: self.last_attn(q, k, v, grid),
            full=self.full_last_block,
        )
        if not pooled:
            return after, after
        # Replaced attention says nothing about the image as a whole.
        if self.visual.pool_type == 'tok':
            return after, run_first_token(block, tokens)
        return after, run_block(block, tokens)

    def _dense(self, tokens: Tensor) -> Tensor:
        """Return all tokens in the space of the texts: ``(N, L, D) -> (N, L, C)``."""
        dense = self.visual.ln_post(tokens)
        if self.project:
            dense = dense @ self.visual.proj
        return self._scaled(dense)

    def _pool(self, tokens: Tensor, num_patches: int) -> Tensor:
        """Return the global token ``(N, E)`` as open_clip pools it."""
        norm: Callable[[Tensor], Tensor] = self.visual.ln_post
        if self.visual.pool_type == 'tok':
            pooled = norm(tokens[:, 0])
        elif self.visual.final_ln_after_pool:
            pooled = norm(tokens[:, -num_patches:].mean(dim=1))
        else:
            pooled = norm(tokens[:, -num_patches:]).mean(dim=1)
        return self._scaled(pooled @ self.visual.proj)

    def _scaled(self, rows: Tensor) -> Tensor:
        # In bfloat16 the lengths would be off by half a percent.
        if not self.normalize:
            return rows
        scaled = F.normalize(rows.float(), dim=-1)
        # Under autocast they stay exact; a model in half precision reads its own type.
        half = next(self.visual.parameters()).dtype != torch.float32
        return scaled.to(rows.dtype) if half else scaled
