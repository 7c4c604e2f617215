"""A start of self-attention that looks at similar and near tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _noise(width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(width, width, generator=generator) / width**0.5


def _factors(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors (W, R) whose product ``a @ b.T`` is the best of that rank."""
    left, sizes, right = torch.linalg.svd(product)
    root = sizes[:rank].sqrt()
    return left[:, :rank] * root, right[:rank].T * root


@torch.no_grad()
def mimetic_attention(attention: nn.MultiheadAttention, seed: int) -> None:
    """Initialise self-attention the way trained transformers come out.

    Queries and keys start so that tokens attend to tokens like themselves, with
    sine-cosine positions mostly to their neighbours; values and output projection
    start close to a small negative identity (Trockman and Kolter 2023, "Mimetic
    Initialization of Self-Attention Layers", section 4, with its strengths 0.7 and
    0.4). From a uniform start a small transformer takes long to find locality.

    Args:
        attention: changed in place; its biases become zero.
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    width, heads = attention.embed_dim, attention.num_heads
    rank, eye = width // heads, torch.eye(width)
    query, key, value = attention.in_proj_weight.split(width)
    for head in range(heads):
        rows = slice(head * rank, (head + 1) * rank)
        left, right = _factors(0.7 * _noise(width, generator) + 0.7 * eye, rank)
        query[rows], key[rows] = left.T, right.T
    left, right = _factors(0.4 * _noise(width, generator) - 0.4 * eye, width)
    value.copy_(right.T)
    attention.out_proj.weight.copy_(left)
    attention.in_proj_bias.zero_()
    attention.out_proj.bias.zero_()
