"""What is added to a tower: prompt tokens, filters, projected taps, and ESDA's parts.

ESDA (Image and Vision Computing 2025, doi 10.1016/j.imavis.2025.105456) adapts a
frozen CLIP with low-rank paths around its blocks (:class:`LowRankBypass`), and tells it
the class it looks for (:class:`ClassPrompt`): a class name in the place of the class
token, and prior maps of patches that look like the class. Blocks before the first name
run once for all names of an image (:class:`SharedTokens`).
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zs3_mmseg.models.precision import at_least_float32

from .blocks import check_blocks


class DeepPrompts(nn.Module):
    """Learnt tokens that stand between the class token and the patches.

    ``depth`` chooses the blocks, as ``total_d_layer`` does in the official code:

    - ``d > 0`` (deep): drawn in before block 0 and drawn anew before each of the
      blocks 1..d; from block d + 1 on there are none.
    - ``d = 0`` (shallow): drawn in before block 0 and kept to the end. The final norm
      is then not applied.
    - ``d < 0`` (reverse): only the last ``|d|`` blocks have prompts.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        depth: int,
        num_blocks: int,
        width: int,
        patch_size: int,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_tokens < 1:
            raise ValueError(f'prompts.num_tokens must be at least 1, not {num_tokens}')
        if not -num_blocks <= depth < num_blocks:
            raise ValueError(
                f'prompts.depth={depth} does not fit a tower of {num_blocks} blocks: '
                f'expected {-num_blocks}..{num_blocks - 1}'
            )
        self.num_tokens = num_tokens
        self.depth = depth
        self.first_block = num_blocks + depth if depth < 0 else 0
        self.last_block = num_blocks - 1 if depth <= 0 else depth
        if depth >= 0:
            self.prompt_embeddings = nn.Parameter(torch.empty(1, num_tokens, width))
        if depth != 0:
            self.deep_prompt_embeddings = nn.Parameter(
                torch.empty(abs(depth), num_tokens, width)
            )
        self.prompt_proj = nn.Linear(width, width)
        self.prompt_norm = nn.LayerNorm(width, eps=1e-6)
        if depth == 0:
            # It is never called then, and DDP waits for gradients of what learns.
            self.prompt_norm.requires_grad_(False)
        self.prompt_dropout = nn.Dropout(dropout)
        self._init(3 * patch_size * patch_size + width)

    def _init(self, fan: int) -> None:
        bound = math.sqrt(6 / fan)
        for name, parameter in self.named_parameters(recurse=False):
            if name.endswith('prompt_embeddings'):
                nn.init.uniform_(parameter, -bound, bound)
        nn.init.kaiming_normal_(self.prompt_proj.weight, a=0, mode='fan_out')

    def count(self, block: int) -> int:
        """Return how many prompts the sequence holds inside a block."""
        inside = self.first_block <= block <= self.last_block
        return self.num_tokens if inside else 0

    def before(self, block: int, tokens: Tensor) -> Tensor:
        """Insert, renew or take out the prompts before a block.

        ``(N, 1 + p + L, D)`` with the ``p`` prompts of the block before becomes
        ``(N, 1 + count(block) + L, D)``.
        """
        held = self.count(block - 1) if block else 0
        fresh = self._fresh(block)
        if fresh is None and held == self.count(block):
            return tokens
        parts = [tokens[:, :1], tokens[:, 1 + held :]]
        if fresh is not None:
            fresh = self.prompt_proj(fresh).expand(tokens.shape[0], -1, -1)
            parts.insert(1, self.prompt_dropout(fresh))
        return torch.cat(parts, dim=1)

    def after(self, tokens: Tensor) -> Tensor:
        """Normalise all tokens after the last block, unless the prompts are shallow."""
        return tokens if self.depth == 0 else self.prompt_norm(tokens)

    def _fresh(self, block: int) -> Tensor | None:
        """Return the embeddings that enter before a block: ``(1, P, D)`` or None."""
        if self.depth >= 0 and block == 0:
            return self.prompt_embeddings
        if self.depth > 0 and 1 <= block <= self.depth:
            return self.deep_prompt_embeddings[block - 1 : block]
        if self.depth < 0 and block >= self.first_block:
            index = block - self.first_block
            return self.deep_prompt_embeddings[index : index + 1]
        return None


class SpectralFilter(nn.Module):
    """A learnt filter of the patches, lit by the class token, as in SPT-SEG.

    Before each of ``blocks`` the patches ``x (h, w, D)`` become ``x + G``, with the
    class token ``c`` and a complex filter ``W`` (arXiv 2312.12754; the released code
    decides)::

        G = irfft2( rfft2(x * c) * W ),  both orthonormal

    ``W`` is stored for one grid. For another, which the official code cannot run, it is
    read at the frequencies of that grid, in cycles per patch, between the stored ones:
    what is filtered out is so at any size.

    Args:
        blocks: the blocks before which patches are filtered.
        grid: ``(h, w)`` that ``W`` is stored for.
        num_blocks: of the tower.
        width: ``D``.
        train: whether ``W`` learns. The released code trains what is named a prompt
            only, which ``W`` is not; whether the authors' own runs did is not known.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (0, 1),
        grid: Sequence[int],
        num_blocks: int,
        width: int,
        train: bool = True,
    ) -> None:
        super().__init__()
        self.blocks = check_blocks('spectral.blocks', blocks, num_blocks)
        height, columns = grid
        shape = (height, columns // 2 + 1, width, 2)
        self.grid = (height, columns)
        self.weight = nn.Parameter(0.02 * torch.randn(shape), train)

    def before(
        self, block: int, tokens: Tensor, num_prompts: int, grid: tuple[int, int]
    ) -> Tensor:
        """Filter the patches before a block: ``(N, 1 + P + hw + G, D)`` stays so."""
        if block not in self.blocks:
            return tokens
        first, count = 1 + num_prompts, grid[0] * grid[1]
        patches = tokens[:, first : first + count]
        lit = (patches * tokens[:, :1]).unflatten(1, grid)
        # There is no Fourier transform of most grids in half precision.
        with torch.autocast(tokens.device.type, enabled=False):
            waves = torch.fft.rfft2(lit.float(), dim=(1, 2), norm='ortho')
            waves = waves * self._filter(grid)
            filtered = torch.fft.irfft2(waves, s=grid, dim=(1, 2), norm='ortho')
        patches = patches + filtered.flatten(1, 2).to(tokens.dtype)
        return torch.cat(
            [tokens[:, :first], patches, tokens[:, first + count :]], dim=1
        )

    def _filter(self, grid: tuple[int, int]) -> Tensor:
        """Return the complex filter of a grid, ``(h, w // 2 + 1, D)``."""
        weight = torch.view_as_complex(self.weight.float().contiguous())
        if grid == self.grid:
            return weight
        device = weight.device
        rows = torch.fft.fftfreq(grid[0], device=device)
        weight = _between(weight, rows * self.grid[0], self.grid[0])
        columns = torch.fft.rfftfreq(grid[1], device=device).clamp(max=0.5)
        places = (columns * self.grid[1]).clamp(max=weight.shape[1] - 1)
        return _between(weight.transpose(0, 1), places, weight.shape[1]).transpose(0, 1)


def _between(rows: Tensor, places: Tensor, period: int) -> Tensor:
    """Read rows ``(R, ...)`` at fractional places, linearly; row 0 follows the last."""
    low = places.floor()
    share = (places - low).view(-1, *[1] * (rows.ndim - 1))
    index = low.long()
    return rows[index % period] * (1 - share) + rows[(index + 1) % period] * share


class TapProjection(nn.Module):
    """Brings taps of several blocks to the space of the texts, each by its own.

    ``u_j = LN_j(t_j) P_j`` as in Cascade-CLIP (ICML 2024), whose configs leave both as
    they start: the norm without scale and shift, ``P_j`` normal with deviation
    ``1 / sqrt(D)``.
    """

    def __init__(
        self, blocks: Sequence[int], width: int, embed_dim: int, *, trainable: bool
    ) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.blocks)
        shape = (len(self.blocks), width, embed_dim)
        self.projections = nn.Parameter(torch.randn(shape) * width**-0.5)
        self.requires_grad_(trainable)

    def forward(self, block: int, tokens: Tensor) -> Tensor:
        """Project the tokens after a block: ``(N, L, D) -> (N, L, E)``."""
        tap = self.blocks.index(block)
        return self.norms[tap](tokens) @ self.projections[tap]


class LowRankBypass(nn.Module):
    """A linear path around a block: ``y = block(x) + (x A) B``.

    ESDA puts one of rank 2 around each block of a frozen CLIP. ``B`` starts at zero, so
    that nothing changes before training.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f'low_rank is a rank of at least 1 or None, not {rank}')
        self.down = nn.Parameter(torch.randn(width, rank))
        self.up = nn.Parameter(torch.zeros(rank, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what is added to the block's output: ``(N, L, D) -> (N, L, D)``."""
        return tokens @ self.down @ self.up


# Constants of the official code, which keep the quotients below finite.
_AREA_EPS = 5e-4
_EPS = 1e-7


def prior_map(patches: Tensor, prototype: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return cosines of patches and prototype, stretched to 0..1 in each image.

    ``(N, hw, D), (N, D) -> (N, 1, h, w)``, computed in float32 under autocast as well.
    A prototype of zeros gives zeros.
    """
    with torch.autocast(patches.device.type, enabled=False):
        patches, prototype = at_least_float32(patches), at_least_float32(prototype)
        products = (patches @ prototype.unsqueeze(-1)).squeeze(-1)  # (N, hw)
        lengths = patches.norm(dim=-1) * prototype.norm(dim=-1, keepdim=True)
        cosines = products / (lengths + _EPS)
        low = cosines.amin(dim=1, keepdim=True)
        high = cosines.amax(dim=1, keepdim=True)
        stretched = (cosines - low) / (high - low + _EPS)
    return stretched.unflatten(1, grid).unsqueeze(1)


def masked_prototype(patches: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of patches: ``(N, hw, D), (N, hw) -> (N, D)``."""
    with torch.autocast(patches.device.type, enabled=False):
        patches = at_least_float32(patches)
        weights = weights.to(patches).unsqueeze(1)  # (N, 1, hw)
        total = (weights @ patches).squeeze(1)
        return total / (weights.sum(dim=-1) + _AREA_EPS)


def patch_weights(foreground: Tensor, grid: tuple[int, int]) -> Tensor:
    """Shrink a mask to the patches, with aligned corners as in the official code.

    ``(N, H, W)``, bool or numbers in 0..1, ``-> (N, hw)`` in 0..1.
    """
    maps = foreground.float().unsqueeze(1)
    small = F.interpolate(maps, size=grid, mode='bilinear', align_corners=True)
    return small.flatten(1)


@dataclass(frozen=True)
class SharedTokens:
    """Tokens between two blocks, and what earlier blocks left behind.

    Attributes:
        tokens: ``(B, L, D)``: the class token, prompts, ``h * w`` patches, and what
            stands behind them.
        pooled: the tokens that the global token would come from.
        grid: ``(h, w)``.
        outputs: block -> its output ``(B, L', D)``, where that is needed later; the
            last ``h * w`` tokens are patches.
        assigned: ``(B, hw)``, to which extra token each patch belongs, where that is
            another one in each image.
    """

    tokens: Tensor
    pooled: Tensor
    grid: tuple[int, int]
    outputs: Mapping[int, Tensor] = field(default_factory=dict)
    assigned: Tensor | None = None

    def patches(self, block: int) -> Tensor:
        """Return the patches after a block: ``(B, hw, D)``."""
        return self.outputs[block][:, -self.grid[0] * self.grid[1] :]

    def pairs(self, image_index: Tensor, needed: Container[int]) -> SharedTokens:
        """Return the state of ``N`` pairs, each with the image ``image_index`` names.

        Only the outputs of ``needed`` blocks are kept.
        """
        tokens = self.tokens[image_index]
        alone = self.pooled is not self.tokens
        return SharedTokens(
            tokens,
            self.pooled[image_index] if alone else tokens,
            self.grid,
            {b: out[image_index] for b, out in self.outputs.items() if b in needed},
            None if self.assigned is None else self.assigned[image_index],
        )


class ClassPrompt(nn.Module):
    """Puts a class name into some blocks and compares patches with it in some."""

    proj: nn.Linear | None

    def __init__(
        self,
        *,
        replace_cls: Sequence[int],
        priors: Sequence[int],
        num_blocks: int,
        text_dim: int,
        width: int,
    ) -> None:
        super().__init__()
        self.replace_cls = check_blocks('replace_cls', replace_cls, num_blocks)
        self.priors = check_blocks('priors', priors, num_blocks)
        self.last_block = num_blocks - 1
        self.text_dim = text_dim
        if self.last_block in self.priors and not self.replace_cls:
            raise ValueError(
                f'priors={self.priors} holds the last block, whose prototype is the '
                f'projected text: set replace_cls, or leave {self.last_block} out'
            )
        self.proj = nn.Linear(text_dim, width) if self.replace_cls else None

    @torch.no_grad()
    def start_like_dense_logits(self, visual: Any) -> None:
        """Let a text row begin as the direction of patches that it is most like.

        CLIP scores a token ``x`` as ``proj(norm(x) * w) . s``, with the weights ``w``
        of the last norm and the text row ``s``: as ``norm(x) . (w * (proj^T s))``, of
        which the second factor is what a text row is projected to here.
        """
        assert self.proj is not None  # there is something to project
        weight = visual.ln_post.weight[:, None] * visual.proj  # (D, E)
        # Rows keep their length on average.
        self.proj.weight.copy_(weight / weight.norm(dim=0).mean())
        self.proj.bias.zero_()

    def project(self, text_cls: Tensor | None, num_pairs: int) -> Tensor | None:
        """Return the class tokens that enter the blocks, or None if none does.

        ``(N, E) -> (N, D)``; a text that is missing or not needed is an error.
        """
        if self.proj is None:
            if text_cls is None:
                return None
            raise ValueError('text_cls is read by no block: set backbone.replace_cls')
        if text_cls is None:
            raise ValueError(
                f'replace_cls={self.replace_cls} needs text_cls, the text row of one '
                'class name for each image: use a segmentor that prompts with names'
            )
        if text_cls.shape != (num_pairs, self.text_dim):
            raise ValueError(
                f'text_cls is {tuple(text_cls.shape)}, expected a row of '
                f'{self.text_dim} for each of {num_pairs} images'
            )
        return self.proj(text_cls)

    def enter(self, block: int, tokens: Tensor, text: Tensor | None) -> Tensor:
        """Return the tokens ``(N, L, D)`` that go into a block."""
        if text is None or block not in self.replace_cls:
            return tokens
        return torch.cat([text.to(tokens.dtype).unsqueeze(1), tokens[:, 1:]], dim=1)

    def needed_outputs(self, foreground: Tensor | None) -> set[int]:
        """Return the blocks whose patches :meth:`prior_maps` looks at."""
        if foreground is not None:
            return set(self.priors)
        return {self.last_block}.intersection(self.priors)

    def prior_maps(
        self, state: SharedTokens, text: Tensor | None, foreground: Tensor | None
    ) -> Tensor:
        """Compare the patches of blocks with their prototypes.

        Args:
            foreground: ``(N, H, W)``, where the class is; None: all prototypes but the
                text are zeros, and so are their maps.

        Returns:
            ``(N, len(priors), h, w)``, values in 0..1.
        """
        weights = None
        if foreground is not None:
            weights = patch_weights(foreground, state.grid)
        maps = []
        for block in self.priors:
            if block == self.last_block and text is not None:
                maps.append(prior_map(state.patches(block), text, state.grid))
            elif weights is not None:
                patches = state.patches(block)
                prototype = masked_prototype(patches, weights)
                maps.append(prior_map(patches, prototype, state.grid))
            else:
                shape = (len(state.tokens), 1, *state.grid)
                maps.append(state.tokens.new_zeros(shape, dtype=torch.float32))
        return torch.cat(maps, dim=1)
