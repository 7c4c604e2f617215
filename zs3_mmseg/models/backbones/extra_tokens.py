"""Tokens behind the patches of a tower, and who may look at whom."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.utils.names import choose

from .blocks import GridCache


class ExtraTokens(nn.Module):
    """Tokens that go through all blocks of a tower behind the patches.

    They get no position embedding and pass the tower's first norm. What the blocks make
    of them becomes ``TowerOutput.group_tokens``. A component of your own overrides
    :meth:`mask` and registers itself in ``MODELS``.

    Args:
        num_tokens: ``G``, at least 1.
        width: ``D``, the width of the tower, which gives it.
        init: how they start: ``'random'`` (normal, with the scale of CLIP's class
            embedding), ``'zero'``, or ``'cls'`` (the class embedding at its position,
            so that only the mask tells them apart).
        trainable: whether they learn, in a frozen tower as well.
        prompt_norm: whether the last norm of prompt tokens is for them, too.
    """

    def __init__(
        self,
        num_tokens: int,
        *,
        width: int,
        init: Literal['random', 'zero', 'cls'] = 'random',
        trainable: bool = True,
        prompt_norm: bool = False,
    ) -> None:
        super().__init__()
        if num_tokens < 1:
            raise ValueError(
                f'extra_tokens.num_tokens must be at least 1, not {num_tokens}'
            )
        choose('extra_tokens.init', init, ('random', 'zero', 'cls'))
        self.num_tokens = num_tokens
        self.init = init
        self.prompt_norm = prompt_norm
        self.tokens = nn.Parameter(torch.zeros(num_tokens, width), trainable)
        self._masks = GridCache()

    @torch.no_grad()
    def start(self, visual: Any) -> None:
        """Give the tokens their first values, in open_clip's image tower ``visual``."""
        if self.init == 'random':
            self.tokens.normal_(std=self.tokens.shape[1] ** -0.5)
        elif self.init == 'cls':
            first = visual.class_embedding + visual.positional_embedding[0]
            self.tokens.copy_(first.expand_as(self.tokens))

    def mask(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """Return who may look at whom among class token, patches and extra tokens.

        Args:
            grid: ``(h, w)``.
            device: of the result.

        Returns:
            ``(L, L)`` with ``L = 1 + h * w + G``, the same for all blocks and heads:
            bool, True where the row's token sees the column's, or float, added to the
            scores before the softmax. Prompt tokens are treated as the class token is.
        """
        raise NotImplementedError

    def attention_mask(
        self, grid: tuple[int, int], num_prompts: int, device: torch.device
    ) -> Tensor:
        """Return :meth:`mask` with ``num_prompts`` rows and columns of prompts."""
        key = (grid, num_prompts, device)
        return self._masks.get(key, lambda: self._widened(grid, num_prompts, device))

    def _widened(
        self, grid: tuple[int, int], num_prompts: int, device: torch.device
    ) -> Tensor:
        mask = self.mask(grid, device)
        length = 1 + grid[0] * grid[1] + self.num_tokens
        name = type(self).__name__
        if mask.shape != (length, length):
            raise ValueError(
                f'{name}.mask gives {tuple(mask.shape)} for a grid of '
                f'{grid[0]}x{grid[1]} patches, expected {(length, length)}'
            )
        if not torch.compiler.is_compiling():
            seen = mask if mask.dtype == torch.bool else mask > -math.inf
            blind = (~seen.any(dim=1)).nonzero().flatten().tolist()
            if blind:
                raise ValueError(f'{name}.mask lets tokens {blind[:5]} see no token')
        others = torch.arange(1, length, device=device)
        index = torch.cat([others.new_zeros(1 + num_prompts), others])
        return mask[index][:, index]


@MODELS.register_module()
class RegionTokens(ExtraTokens):
    """One token for each cell of a coarse grid, as in CLIP-RC (CVPR 2024).

    The ``G = r * r`` tokens stand in rows over the image. Token ``(i, j)`` sees itself
    and the patches of its cell, which has ``floor(h / r) x floor(w / r)`` patches; a
    patch sees its cell's token, all patches, class token and prompts; the last two
    never see a region. Rows and columns of patches that fill no cell belong to none, as
    in the official code; with fewer than ``r`` patches a side, some cells are empty.

    Args:
        num_tokens: ``G``, a square number.
        width: ``D``, the width of the tower, which gives it.
        init: see :class:`ExtraTokens`; ``'cls'`` as published.
        trainable: False as in the published configs, where they keep their first value.
        prompt_norm: whether the last norm of prompt tokens is for them, too.
    """

    def __init__(
        self,
        num_tokens: int = 16,
        *,
        width: int,
        init: Literal['random', 'zero', 'cls'] = 'cls',
        trainable: bool = False,
        prompt_norm: bool = False,
    ) -> None:
        super().__init__(
            num_tokens,
            width=width,
            init=init,
            trainable=trainable,
            prompt_norm=prompt_norm,
        )
        self.side = math.isqrt(num_tokens)
        if self.side**2 != num_tokens:
            raise ValueError(
                f'extra_tokens.num_tokens={num_tokens} is no square number, and '
                'regions form a square'
            )

    def mask(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        rows, columns = (
            torch.arange(size, device=device) // max(size // self.side, 1)
            for size in grid
        )
        cells = rows[:, None] * self.side + columns
        whole = (rows[:, None] < self.side) & (columns < self.side)
        cells = torch.where(whole, cells, -1).flatten()
        regions = torch.arange(self.num_tokens, device=device)
        belongs = cells[:, None] == regions  # (hw, G)
        first = 1 + len(cells)
        mask = torch.ones(2 * (first + self.num_tokens,), dtype=torch.bool).to(device)
        mask[:, first:] = False
        mask[first:] = False
        mask[1:first, first:] = belongs
        mask[first:, 1:first] = belongs.T
        mask[first:, first:] = regions[:, None] == regions
        return mask
