"""The cross-attention mask decoder of ZegCLIP (arXiv 2212.03588, section 3.3)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def matching_logits(query: Tensor, key: Tensor, num_heads: int) -> Tensor:
    """Mean over heads of the pre-softmax attention map, which is the class mask.

    The mean of the per-head products is one product over all channels, so no
    per-head map is made.

    Args:
        query: ``(N, Q, E)``, projected class queries.
        key: ``(N, M, E)``, projected patches.
        num_heads: heads ``H``; each head's product is scaled by ``sqrt(E / H)``.

    Returns:
        mask logits ``(N, Q, M)``.
    """
    scale = num_heads * (query.shape[-1] / num_heads) ** 0.5
    return (query / scale) @ key.transpose(1, 2)


class CrossAttention(nn.Module):
    """Multi-head attention of class queries to patches, with biases everywhere."""

    def __init__(self, dim: int, num_heads: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'{dim} channels do not divide into {num_heads} heads')
        self.num_heads = num_heads
        self.dropout = dropout
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, query: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attend.

        Args:
            query: ``(N, Q, E)``.
            memory: ``(N, M, E)``.

        Returns:
            the attended values ``(N, Q, E)`` and the projected queries and keys.
        """
        q, k, v = self.q(query), self.k(memory), self.v(memory)
        attended = F.scaled_dot_product_attention(
            self._split(q),
            self._split(k),
            self._split(v),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.proj(attended.transpose(1, 2).flatten(2)), q, k


class MaskDecoderLayer(nn.Module):
    """Cross-attention and feed-forward, both post-norm; no self-attention."""

    def __init__(
        self, dim: int, num_heads: int, *, ffn_dim: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.attn = CrossAttention(dim, num_heads, dropout=dropout)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, query: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Refine the queries.

        Returns:
            the refined queries ``(N, Q, E)`` and this layer's mask logits
            ``(N, Q, M)``.
        """
        attended, q, k = self.attn(query, memory)
        query = self.norm2(query + self.drop(attended))
        hidden = self.drop(F.relu(self.linear1(query)))
        query = self.norm3(query + self.drop(self.linear2(hidden)))
        return query, matching_logits(q, k, self.attn.num_heads)


class MatchingLayer(nn.Module):
    """The last layer: of its attention only the map is used, so only ``q`` and ``k``.

    The official code also holds its values, projection, feed-forward and norms, which
    no gradient ever reaches.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """Return mask logits ``(N, Q, M)``."""
        return matching_logits(self.q(query), self.k(memory), self.num_heads)


class MaskDecoder(nn.Module):
    """A stack of :class:`MaskDecoderLayer` that ends in a :class:`MatchingLayer`.

    Queries never look at each other, so any subset of the classes gives the rows that
    the whole vocabulary gives.

    Args:
        dim: channels ``E`` of queries and patches.
        num_layers: layers, the last one included.
        num_heads: attention heads.
        ffn_dim: hidden width of the feed-forward part.
        dropout: on attention, its output, inside and after the feed-forward part.
        identical_layers: start all layers as copies of the first, as the official
            code does; else each is drawn on its own.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_layers: int = 3,
        num_heads: int = 8,
        ffn_dim: int | None = None,
        dropout: float = 0.1,
        identical_layers: bool = True,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f'num_layers must be at least 1, not {num_layers}')
        layers = [
            MaskDecoderLayer(
                dim, num_heads, ffn_dim=ffn_dim or 4 * dim, dropout=dropout
            )
            for _ in range(num_layers - 1)
        ]
        matching = MatchingLayer(dim, num_heads)
        if identical_layers and layers:
            first = layers[0]
            layers = [first, *(copy.deepcopy(first) for _ in layers[1:])]
            matching.q.load_state_dict(first.attn.q.state_dict())
            matching.k.load_state_dict(first.attn.k.state_dict())
        self.layers = nn.ModuleList(layers)
        self.matching = matching

    @torch.no_grad()
    def start_as_cosine(self, scale: float) -> None:
        """Make the result ``scale`` times the cosine of query and patch.

        Residual branches start at zero, so that a query passes nothing but norms, and
        the last layer's projections start as multiples of the identity. Patches must
        have length one, and without earlier layers queries, too.

        Args:
            scale: factor on the cosine with the query, which the norms have centred.
        """
        for layer in self.layers:
            assert isinstance(layer, MaskDecoderLayer)  # a ModuleList does not know
            for branch in (layer.attn.proj, layer.linear2):
                nn.init.zeros_(branch.weight)
                nn.init.zeros_(branch.bias)
        dim, heads = self.matching.q.in_features, self.matching.num_heads
        query_length = dim**0.5 if self.layers else 1.0
        divisor = heads * (dim / heads) ** 0.5
        factor = (scale * divisor / query_length) ** 0.5
        for projection in (self.matching.q, self.matching.k):
            projection.weight.copy_(factor * torch.eye(dim))
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, memory: Tensor) -> list[Tensor]:
        """Match queries to patches.

        Args:
            query: ``(N, Q, E)``.
            memory: ``(N, M, E)``.

        Returns:
            mask logits ``(N, Q, M)`` of every layer; the last entry is the result, the
            others serve deep supervision.
        """
        masks: list[Tensor] = []
        for layer in self.layers:
            query, mask = layer(query, memory)
            masks.append(mask)
        masks.append(self.matching(query, memory))
        return masks


def descriptor(terms: tuple[str, ...], text: Tensor, image: Tensor) -> Tensor:
    """Relationship descriptor of class texts and an image (paper, section 3.4).

    Args:
        terms: any of ``'product'`` (elementwise ``T * z``), ``'text'`` (``T``),
            ``'difference'`` (``|T - z|``) and ``'image'`` (``z``), concatenated as
            they stand here; published: ``('product', 'text')``.
        text: rows ``T``, ``(Q, E)``.
        image: global embeddings ``z``, ``(N, E)``.

    Returns:
        ``(N, Q, len(terms) * E)``.
    """
    rows = text.unsqueeze(0).expand(len(image), -1, -1)
    whole = image.unsqueeze(1).expand(-1, len(text), -1)
    make = {
        'product': lambda: rows * whole,
        'text': lambda: rows,
        'difference': lambda: (rows - whole).abs(),
        'image': lambda: whole,
    }
    return torch.cat([make[term]() for term in terms], dim=-1)


DESCRIPTOR_TERMS = ('product', 'text', 'difference', 'image')
