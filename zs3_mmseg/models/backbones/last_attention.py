"""Training-free attention of a CLIP ViT's last block, one class each.

The last block of CLIP mixes all patches for the sake of the class token. Each strategy
replaces its attention matrix ``A`` so that a patch token stays with its surroundings,
and says whether the block's residual and feed-forward paths are kept. ``q``, ``k``
and ``v`` are those of the last block, ``d`` is the width of a head. A strategy returns
``A v``; the output projection follows in the block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zs3_mmseg.utils.names import choose

from .blocks import GridCache


class LastAttention:
    """One way to attend in the last block.

    Attributes:
        full_block: whether the residual and feed-forward paths are kept by default.
    """

    full_block: ClassVar[bool] = True

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """Return ``A v``.

        Args:
            q: ``(N, heads, L, d)``; the last ``h * w`` of the ``L`` tokens are patches.
        """
        raise NotImplementedError


class Vanilla(LastAttention):
    """CLIP's own: ``softmax(q k^T / sqrt d)``."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class MaskCLIP(LastAttention):
    """Identity, with residual and feed-forward path, as MaskCLIP's code does."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        return v


class MaskCLIPV(MaskCLIP):
    """Identity alone: the values of the last block, as MaskCLIP's paper words it."""

    full_block = False


class SCLIP(LastAttention):
    """``softmax(q q^T / sqrt d) + softmax(k k^T / sqrt d)``; its rows sum to 2."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        by_query = F.scaled_dot_product_attention(q, q, v)
        return by_query + F.scaled_dot_product_attention(k, k, v)


class ClearCLIP(LastAttention):
    """``softmax(q q^T / sqrt d)`` alone."""

    full_block = False

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        return F.scaled_dot_product_attention(q, q, v)


class KeyKey(LastAttention):
    """``softmax(k k^T / sqrt d)`` alone."""

    full_block = False

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        return F.scaled_dot_product_attention(k, k, v)


class _Windowed(LastAttention):
    """Attention that adds a Gaussian window over the patches around a patch."""

    full_block = False

    def __init__(self, *, std: float = 5.0, weight: float = 1.0) -> None:
        if std <= 0:
            raise ValueError(f'std must be positive, not {std}')
        self.std = float(std)
        self.weight = float(weight)
        self._windows = GridCache()

    def window(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the window ``(L, L)`` for ``tokens`` ``(N, heads, L, d)``."""
        key = (grid, tokens.shape[2], tokens.device, tokens.dtype)
        return self._windows.get(key, lambda: self._build(tokens, grid))

    def _build(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        window = self.weight * gaussian_window(grid, self.std, tokens.device)
        others = tokens.shape[2] - window.shape[0]  # class token (and prompts): 0
        return F.pad(window, (others, 0, others, 0)).to(tokens.dtype)


class NACLIP(_Windowed):
    """``softmax(k k^T / sqrt d + w)`` with a Gaussian window ``w``, alone."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        return F.scaled_dot_product_attention(k, k, v, attn_mask=self.window(k, grid))


class NeighboursOnly(_Windowed):
    """``softmax(m w / sqrt d)``: the window alone, a control for NACLIP.

    ``m`` is the mean of ``|q_i| |k_j|`` over heads and pairs of tokens, taken for each
    image by itself: the published code takes it over the batch, which lets images in
    one batch change each other.
    """

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        lengths = q.norm(dim=-1).mean(dim=-1) * k.norm(dim=-1).mean(dim=-1)
        scale = lengths.mean(dim=1) * q.shape[-1] ** -0.5  # (N,)
        scores = scale[:, None, None, None] * self.window(q, grid)
        return scores.softmax(dim=-1).to(v.dtype) @ v


def gaussian_window(
    grid: tuple[int, int], std: float, device: torch.device | None = None
) -> Tensor:
    """Return ``exp(-dist_ij^2 / (2 std^2))`` for all pairs of patches, ``(hw, hw)``."""
    factors = []
    for size in grid:
        place = torch.arange(size, device=device, dtype=torch.float32)
        distance = place[:, None] - place[None, :]
        factors.append(torch.exp(-(distance**2) / (2 * std**2)))
    # The exponential of a sum of squares: rows and columns are independent.
    return torch.kron(factors[0], factors[1])


LAST_ATTENTION: dict[str, type[LastAttention]] = {
    'vanilla': Vanilla,
    'maskclip': MaskCLIP,
    'maskclip_v': MaskCLIPV,
    'sclip': SCLIP,
    'clearclip': ClearCLIP,
    'kk': KeyKey,
    'naclip': NACLIP,
    'nonly': NeighboursOnly,
}
_ALIASES = {'csa': 'sclip'}


def build_last_attention(config: str | Mapping) -> LastAttention:
    """Build a strategy from its name, or from ``dict(type=name, **options)``."""
    options = dict(config) if isinstance(config, Mapping) else dict(type=config)
    name = options.pop('type', None)
    known = choose('last_attn', _ALIASES.get(name, name), LAST_ATTENTION)
    try:
        return LAST_ATTENTION[known](**options)
    except TypeError as error:
        raise ValueError(f'last_attn={name!r}: {error}') from error
