"""The forward pass of open_clip's transformer blocks, open to other attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

#: ``(q, k, v) -> A v``, all ``(N, heads, L, d)``.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

# An open_clip ``ResidualAttentionBlock``, which is known to run time only.
Block = Any


def is_plain(block: Block) -> bool:
    """Whether a block is CLIP's own, whose attention can be replaced.

    open_clip's custom blocks (normalised queries, scaled heads, ...) have other
    modules inside and can only be run as they are.
    """
    return isinstance(block.attn, nn.MultiheadAttention)


def run_block(block: Block, tokens: Tensor) -> Tensor:
    """Run a block as open_clip does: ``(N, L, D) -> (N, L, D)``."""
    if not is_plain(block):
        return block(tokens)
    return replaced_block(block, tokens, F.scaled_dot_product_attention)


def replaced_block(
    block: Block, tokens: Tensor, attend: Attend, full: bool = True
) -> Tensor:
    """Run a plain block with another attention in it.

    Args:
        block: an open_clip ``ResidualAttentionBlock``.
        tokens: ``(N, L, D)``.
        attend: the attention.
        full: keep the residual and feed-forward paths; without them the block is the
            projected attention alone.

    Returns:
        ``(N, L, D)``.
    """
    attention = block.attn
    q, k, v = _heads(attention, block.ln_1(tokens))
    mixed = _merge(attend(q, k, v))
    update = block.ls_1(attention.out_proj(mixed))
    return feed_forward(block, tokens + update) if full else update


def run_first_token(block: Block, tokens: Tensor) -> Tensor:
    """Run a plain block for the first token alone: ``(N, L, D) -> (N, 1, D)``."""
    attention = block.attn
    q, k, v = _heads(attention, block.ln_1(tokens))
    mixed = _merge(F.scaled_dot_product_attention(q[:, :, :1], k, v))
    return feed_forward(block, tokens[:, :1] + block.ls_1(attention.out_proj(mixed)))


def feed_forward(block: Block, tokens: Tensor) -> Tensor:
    """Add the feed-forward path of a block to its tokens."""
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def _heads(
    attention: nn.MultiheadAttention, tokens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    qkv = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    qkv = qkv.unflatten(-1, (3, attention.num_heads, -1))  # (N, L, 3, heads, d)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _merge(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)  # (N, L, heads * d)
