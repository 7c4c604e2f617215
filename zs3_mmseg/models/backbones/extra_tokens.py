"""Tokens behind the patches of a tower, and who may look at whom."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import choose

from .blocks import GridCache
from .frozen import FrozenBackbone


class ExtraTokens(nn.Module):
    """Tokens that go through all blocks of a tower behind the patches.

    They get no position embedding and pass the tower's first norm. What the blocks make
    of them becomes ``TowerOutput.group_tokens``. A component of your own overrides
    :meth:`mask` and registers itself in ``MODELS``; one whose mask is another for each
    image overrides :meth:`assign` as well.

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

    def assign(
        self,
        img: Tensor,
        grid: tuple[int, int],
        untouched: Callable[[], Tensor],
    ) -> Tensor | None:
        """Return to which token each patch belongs; None where that is fixed.

        Args:
            img: ``(N, 3, H, W)``, normalised RGB.
            grid: ``(h, w)``.
            untouched: gives the patches ``(N, hw, D)`` as the tower makes them without
                prompts and extra tokens, normed.

        Returns:
            ``(N, hw)`` int64 in ``0..G - 1``, or None: :meth:`mask` says it for all.
        """
        return None

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
        self,
        grid: tuple[int, int],
        num_prompts: int,
        device: torch.device,
        assigned: Tensor | None = None,
    ) -> Tensor:
        """Return :meth:`mask` with ``num_prompts`` rows and columns of prompts.

        ``(L, L)``, or ``(N, L, L)`` of images whose patches are ``assigned``.
        """
        if assigned is not None:
            belongs = F.one_hot(assigned, self.num_tokens).bool()
            return _with_prompts(mask_of_groups(belongs), num_prompts)
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
        return _with_prompts(mask, num_prompts)


def _with_prompts(mask: Tensor, num_prompts: int) -> Tensor:
    """Give prompts the rows and columns ``(..., L, L)`` of the class token."""
    others = torch.arange(1, mask.shape[-1], device=mask.device)
    index = torch.cat([others.new_zeros(1 + num_prompts), others])
    return mask[..., index, :][..., index]


def mask_of_groups(belongs: Tensor) -> Tensor:
    """Return the mask of tokens that stand for groups of patches.

    A group's token sees itself and its patches; a patch sees its groups' tokens, all
    patches and the class token; the class token never sees a group.

    Args:
        belongs: ``(..., hw, G)`` bool, which patch is in which group.

    Returns:
        ``(..., L, L)`` bool with ``L = 1 + hw + G``, see :meth:`ExtraTokens.mask`.
    """
    patches, groups = belongs.shape[-2:]
    first = 1 + patches
    mask = belongs.new_ones(*belongs.shape[:-2], first + groups, first + groups)
    mask[..., first:] = False
    mask[..., first:, :] = False
    mask[..., 1:first, first:] = belongs
    mask[..., first:, 1:first] = belongs.transpose(-1, -2)
    mask[..., first:, first:] = torch.eye(groups, dtype=torch.bool).to(belongs.device)
    return mask


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
        return mask_of_groups(cells[:, None] == regions)


def cluster_rows(rows: Tensor, count: int, rounds: int) -> Tensor:
    """Group the rows ``(N, L, C)`` of each image by k-means; ``(N, L)`` int64.

    The first centre is the row farthest from the mean, each further one the row
    farthest from all centres so far, so that nothing is drawn. In double precision,
    lest rounding, which depends on who else is in the batch, move a patch.
    """
    rows = rows.double()
    every = torch.arange(len(rows), device=rows.device)
    mean = rows.mean(dim=1, keepdim=True)
    centres = rows[every, _distances(rows, mean)[..., 0].argmax(dim=1)][:, None]
    for _ in range(1, count):
        nearest = _distances(rows, centres).amin(dim=-1)
        centres = torch.cat([centres, rows[every, nearest.argmax(dim=1)][:, None]], 1)
    for _ in range(rounds):
        labels = _distances(rows, centres).argmin(dim=-1)
        chosen = F.one_hot(labels, count).to(rows)  # (N, L, count)
        sizes = chosen.sum(dim=1)[..., None]
        means = chosen.transpose(1, 2) @ rows / sizes.clamp(min=1)
        centres = torch.where(sizes > 0, means, centres)
    return _distances(rows, centres).argmin(dim=-1)


def _distances(rows: Tensor, centres: Tensor) -> Tensor:
    """Return squared distances ``(N, L, K)`` without making ``(N, L, K, C)``."""
    squares = rows.square().sum(-1)[..., None] + centres.square().sum(-1)[:, None]
    return (squares - 2 * rows @ centres.transpose(1, 2)).clamp(min=0)


#: What patches may be clustered by, beside a network of their own.
CLUSTER_FEATURES = ('tower', 'colour')


@MODELS.register_module()
class ClusterTokens(ExtraTokens):
    """One token for each cluster of patches of an image, after OC-ZSS (ICLR 2026).

    The paper's abstract says that tokens in the encoder attend to coarse regions from
    an unsupervised clustering of frozen self-supervised features; the rest was decided
    here, and no figure of the paper is claimed. Clusters come from k-means of the rows

        ``[f_p / |f_p|, place * (y_p, x_p)]``

    with the features ``f`` of the patches ``p``, less their mean over the image, and
    places in 0..1; see :func:`cluster_rows`. Token ``k`` sees itself and the patches of
    cluster ``k``; a patch sees its cluster's token, all patches, class token and
    prompts, which never see a cluster. An image with fewer kinds of patches than tokens
    has tokens without patches.

    Args:
        num_tokens: ``G``, the number of clusters.
        width: ``D``, the width of the tower, which gives it.
        features: ``'tower'``, the patches of the tower itself without prompts, which is
            one more pass of the tower; ``'colour'``, the mean colour of each patch; or
            the config of a backbone, frozen here, whose last map is brought to the
            grid, such as ``dict(type='TIMMBackbone',
            model_name='vit_base_patch16_224.dino', features_only=True,
            pretrained=True, dynamic_img_size=True)``. It gets the image as the tower
            does.
        place: how much the place of a patch counts, >= 0.
        rounds: of k-means, >= 0.
        init: see :class:`ExtraTokens`.
        trainable: whether the tokens learn.
        prompt_norm: whether the last norm of prompt tokens is for them, too.

    Raises:
        ConfigError: for values out of range.
    """

    def __init__(
        self,
        num_tokens: int = 8,
        *,
        width: int,
        features: str | Mapping[str, Any] = 'tower',
        place: float = 0.5,
        rounds: int = 10,
        init: Literal['random', 'zero', 'cls'] = 'cls',
        trainable: bool = True,
        prompt_norm: bool = False,
    ) -> None:
        super().__init__(
            num_tokens,
            width=width,
            init=init,
            trainable=trainable,
            prompt_norm=prompt_norm,
        )
        if place < 0 or rounds < 0:
            raise ConfigError(
                f'extra_tokens.place={place} and rounds={rounds} must not be below 0'
            )
        self.place = place
        self.rounds = rounds
        self.features = 'network'
        self.network: FrozenBackbone | None = None
        if isinstance(features, str):
            self.features = choose('extra_tokens.features', features, CLUSTER_FEATURES)
        else:
            self.network = FrozenBackbone(features)

    @torch.no_grad()
    def assign(
        self,
        img: Tensor,
        grid: tuple[int, int],
        untouched: Callable[[], Tensor],
    ) -> Tensor:
        """Return the cluster of each patch, see :meth:`ExtraTokens.assign`."""
        if self.features == 'tower':
            rows = untouched()
        else:
            maps = img if self.network is None else self.network(img)[-1]
            rows = F.adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2)
        rows = F.normalize(rows - rows.mean(dim=1, keepdim=True), dim=-1)
        y, x = (
            torch.linspace(0, 1, size, device=rows.device, dtype=rows.dtype)
            for size in grid
        )
        places = torch.stack(torch.meshgrid(y, x, indexing='ij'), dim=-1).flatten(0, 1)
        places = self.place * places.expand(len(rows), -1, -1)
        return cluster_rows(
            torch.cat([rows, places], dim=-1), self.num_tokens, self.rounds
        )
