"""The relation decoder of ZegCLIP and its family: class queries find their patches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zs3_mmseg.utils.names import choose

from .sinkhorn import SinkhornAttention, SinkhornMatching


class Layout(NamedTuple):
    """How tokens stand in the sequences that a decoder gets.

    Attributes:
        grid: ``(h, w)`` of the ``M = hw`` patches, row by row.
        rows: ``P``, how many rows of a query stand side by side, in ``Q * P`` in all.
    """

    grid: tuple[int, int]
    rows: int = 1


def matching_logits(query: Tensor, key: Tensor, num_heads: int) -> Tensor:
    """Mean over heads of the pre-softmax attention map, which is the class mask.

    ``1/H sum_h q_h k_h^T / sqrt(E / H)`` of projected queries ``(N, Q, E)`` and patches
    ``(N, M, E)`` is one product over all channels, so no per-head map is made:
    ``(N, Q, M)``.
    """
    scale = num_heads * (query.shape[-1] / num_heads) ** 0.5
    return (query / scale) @ key.transpose(1, 2)


def mean_of_rows(masks: Tensor, layout: Layout) -> Tensor:
    """Average the masks of each query's rows: ``(N, Q * P, M) -> (N, Q, M)``."""
    if layout.rows == 1:
        return masks
    return masks.unflatten(1, (-1, layout.rows)).mean(2)


class _ScaledProducts(nn.Module):
    """The projections whose products are the masks."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'{dim} channels do not divide into {num_heads} heads')
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)

    def start_as_cosine(self, scale: float, query_length: float) -> None:
        """Make the masks ``scale`` times the cosine, for queries of one length."""
        dim = self.q.in_features
        divisor = self.num_heads * (dim / self.num_heads) ** 0.5
        factor = (scale * divisor / query_length) ** 0.5
        for projection in (self.q, self.k):
            projection.weight.copy_(factor * torch.eye(dim))
            nn.init.zeros_(projection.bias)


class CrossAttention(_ScaledProducts):
    """Multi-head attention of class queries to patches, with biases everywhere."""

    def __init__(self, dim: int, num_heads: int, *, dropout: float = 0.1) -> None:
        super().__init__(dim, num_heads)
        self.dropout = dropout
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, query: Tensor, memory: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """Attend with queries ``(N, Q * P, E)`` to patches ``(N, M, E)``.

        Returns the attended values ``(N, Q * P, E)`` and the masks ``(N, Q, M)``.
        """
        q, k, v = self.q(query), self.k(memory), self.v(memory)
        heads = [
            tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for tokens in (q, k, v)
        ]
        attended = F.scaled_dot_product_attention(
            heads[0],
            heads[1],
            heads[2],
            dropout_p=self.dropout if self.training else 0.0,
        )
        masks = mean_of_rows(matching_logits(q, k, self.num_heads), layout)
        return self.proj(attended.transpose(1, 2).flatten(2)), masks


class MatchingLayer(_ScaledProducts):
    """The last layer: of its attention only the map is used, so only ``q`` and ``k``.

    The official code also holds its values, projection, feed-forward and norms, which
    no gradient ever reaches.
    """

    def forward(self, query: Tensor, memory: Tensor, layout: Layout) -> Tensor:
        """Return mask logits ``(N, Q, M)`` of queries ``(N, Q * P, E)``."""
        masks = matching_logits(self.q(query), self.k(memory), self.num_heads)
        return mean_of_rows(masks, layout)


class AttentionKind(NamedTuple):
    """The two modules that a kind of attention consists of.

    Attributes:
        attention: ``(dim, num_heads, *, dropout, **options)`` gives a module that is
            called as :class:`CrossAttention` is.
        matching: ``(dim, num_heads, **options)`` gives the one of the last layer, which
            is called as :class:`MatchingLayer` is, and names its parameters as the
            other does.
        masks: what its masks can be made of, see ``mask_from`` of
            :class:`MaskDecoder`; where there is a choice, both modules take it.
    """

    attention: Callable[..., nn.Module]
    matching: Callable[..., nn.Module]
    masks: tuple[str, ...] = ('attention',)


#: How the queries of a decoder look at patches.
ATTENTIONS: dict[str, AttentionKind] = {
    'softmax': AttentionKind(CrossAttention, MatchingLayer),
    'sinkhorn': AttentionKind(
        SinkhornAttention, SinkhornMatching, masks=('attention', 'plan')
    ),
}
#: What becomes of the masks of the layers before the last.
LAYER_MERGES = ('last', 'gate')


def gated(masks: Sequence[Tensor]) -> Tensor:
    """Return the last layer's masks, weighted by those of the others (OTSeg).

    ``m_L prod_{l<L} sigmoid(m_l)^(1 / (L - 1))`` of ``L`` masks of one shape.
    """
    *others, last = masks
    if not others:
        return last
    logarithms = torch.stack([F.logsigmoid(mask) for mask in others])
    return last * logarithms.mean(0).exp()


class MaskDecoderLayer(nn.Module):
    """Cross-attention and feed-forward, both post-norm; no self-attention."""

    attn: Any

    def __init__(
        self, attention: nn.Module, dim: int, *, ffn_dim: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.attn = attention
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, query: Tensor, memory: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """Return refined queries ``(N, Q * P, E)`` and masks ``(N, Q, M)``."""
        attended, masks = self.attn(query, memory, layout)
        query = self.norm2(query + self.drop(attended))
        hidden = self.drop(F.relu(self.linear1(query)))
        query = self.norm3(query + self.drop(self.linear2(hidden)))
        return query, masks


class MaskDecoder(nn.Module):
    """A stack of :class:`MaskDecoderLayer` that ends in a matching layer.

    Queries never look at each other, so any subset of the classes gives the rows that
    the whole vocabulary gives. ``num_layers`` counts the last one, too. With
    ``identical_layers`` all layers start as copies of the first, as in the official
    code; else each is drawn on its own.

    ``attention`` is one of :data:`ATTENTIONS`, or a dict with ``type`` and options.
    ``mask_from`` says what the masks are: the ``'attention'`` before any softmax, as a
    mean over heads and rows, or of a transport ``'plan'`` the similarity that it moves.
    With ``merge_layers='gate'`` the result is :func:`gated` by the earlier layers.
    """

    matching: Any

    def __init__(
        self,
        dim: int,
        *,
        num_layers: int = 3,
        num_heads: int = 8,
        ffn_dim: int | None = None,
        dropout: float = 0.1,
        identical_layers: bool = True,
        attention: str | Mapping[str, Any] = 'softmax',
        mask_from: str = 'attention',
        merge_layers: str = 'last',
    ) -> None:
        super().__init__()
        self.merge_layers = choose('merge_layers', merge_layers, LAYER_MERGES)
        if num_layers < 1:
            raise ValueError(f'num_layers must be at least 1, not {num_layers}')
        options = dict(type=attention) if isinstance(attention, str) else {**attention}
        self.attention = str(options.pop('type', None))
        kind = ATTENTIONS[choose('attention', self.attention, ATTENTIONS)]
        choose(f'mask_from with attention={self.attention!r}', mask_from, kind.masks)
        if len(kind.masks) > 1:
            options['mask_from'] = mask_from
        layers = [
            MaskDecoderLayer(
                kind.attention(dim, num_heads, dropout=dropout, **options),
                dim,
                ffn_dim=ffn_dim or 4 * dim,
                dropout=dropout,
            )
            for _ in range(num_layers - 1)
        ]
        matching = kind.matching(dim, num_heads, **options)
        if identical_layers and layers:
            first = layers[0]
            layers = [first, *(copy.deepcopy(first) for _ in layers[1:])]
            # It has some of the attention's parameters, under the same names.
            matching.load_state_dict(first.attn.state_dict(), strict=False)
        self.layers = nn.ModuleList(layers)
        self.matching = matching

    @torch.no_grad()
    def start_as_cosine(self, scale: float) -> None:
        """Make the result ``scale`` times the cosine of query and patch.

        Residual branches start at zero, so that a query passes nothing but norms, which
        centre it, and the last layer's projections, with gates those of all layers,
        start as multiples of the identity. Patches must have length one, and queries,
        too.
        """
        if not hasattr(self.matching, 'start_as_cosine'):
            raise ValueError(
                f'cosine_start={scale} is not for attention={self.attention!r}: set it '
                'to None'
            )
        parts, length = [], 1.0
        for layer in self.layers:
            assert isinstance(layer, MaskDecoderLayer)  # a ModuleList does not know
            parts.append((layer.attn, length))
            length = self.matching.q.in_features**0.5  # of what a norm gives
            for branch in (layer.attn.proj, layer.linear2):
                nn.init.zeros_(branch.weight)
                nn.init.zeros_(branch.bias)
        parts.append((self.matching, length))
        for part, length in parts if self.merge_layers == 'gate' else parts[-1:]:
            part.start_as_cosine(scale, length)

    def forward(self, query: Tensor, memory: Tensor, layout: Layout) -> list[Tensor]:
        """Match queries ``(N, Q * P, E)`` to patches ``(N, M, E)``.

        Returns mask logits ``(N, Q, M)`` of every layer; the last entry is the result,
        the others serve deep supervision and gates.
        """
        masks: list[Tensor] = []
        for layer in self.layers:
            query, mask = layer(query, memory, layout)
            masks.append(mask)
        masks.append(self.matching(query, memory, layout))
        if self.merge_layers == 'gate':
            masks[-1] = gated(masks)
        return masks
