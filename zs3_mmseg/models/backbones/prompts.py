"""Prompt tokens in a frozen image tower (ZegCLIP, arXiv 2212.03588, section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class DeepPrompts(nn.Module):
    """Learnt tokens that stand between the class token and the patches.

    ``depth`` chooses the blocks, as ``total_d_layer`` does in the official code:

    - ``d > 0`` (deep): drawn in before block 0 and drawn anew before each of the
      blocks 1..d; from block d + 1 on there are none.
    - ``d = 0`` (shallow): drawn in before block 0 and kept to the end. The final norm
      is then not applied.
    - ``d < 0`` (reverse): only the last ``|d|`` blocks have prompts.

    Args:
        num_tokens: prompts per block, at least 1.
        depth: see above; -num_blocks..num_blocks - 1.
        num_blocks: blocks of the tower.
        width: channels of its tokens.
        patch_size: scales the initial range as the official code does.
        dropout: on the projected prompts, drawn for each image.
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

        Args:
            block: its index.
            tokens: ``(N, 1 + p + hw, D)`` with the ``p`` prompts of the block before.

        Returns:
            ``(N, 1 + count(block) + hw, D)``.
        """
        held = self.count(block - 1) if block else 0
        fresh = self._fresh(block)
        if fresh is None and held == self.count(block):
            return tokens
        parts = [tokens[:, :1], tokens[:, 1 + held :]]
        if fresh is not None:
            fresh = self.prompt_proj(fresh).expand(len(tokens), -1, -1)
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
