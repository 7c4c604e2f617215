"""The relation decoder of ZegCLIP and its family: class queries find their patches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zs3_mmseg.utils.config_check import ConfigError
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


class HiLoFilter(nn.Module):
    """Patches seen at two frequencies, as in the decoder of SPT-SEG (``hlfs``).

    Of the ``H`` heads ``int(H * low_share)`` are low: patches attend to the means of
    ``window x window`` patches. The others are high: patches attend within their
    window. Both take no bias. Maps are filled up with zeros to whole windows, which
    take part and are cut off again. With a learnt prompt ``p`` and map ``T``, which
    starts as the identity, the patches ``y`` become ``clamp(cos(y, p), 0, 1) y T``:
    where the cosine is not above 0, a patch has no mask at all.
    """

    def __init__(
        self, dim: int, num_heads: int, *, window: int = 3, low_share: float = 0.9
    ) -> None:
        super().__init__()
        self.low_heads = int(num_heads * low_share)
        self.high_heads = num_heads - self.low_heads
        if dim % num_heads or window < 1 or not 0 < self.low_heads < num_heads:
            raise ValueError(
                "attention='hilo' needs channels that divide into heads, a window of "
                'at least 1, and heads of both kinds: got '
                f'{dim} channels, num_heads={num_heads}, window={window} and '
                f'low_share={low_share}'
            )
        self.window = window
        width = dim // num_heads
        low, high = self.low_heads * width, self.high_heads * width
        self.l_q = nn.Linear(dim, low, bias=False)
        self.l_kv = nn.Linear(dim, 2 * low, bias=False)
        self.l_proj = nn.Linear(low, low)
        self.h_qkv = nn.Linear(dim, 3 * high, bias=False)
        self.prompt = nn.Parameter(torch.randn(dim))
        self.top_down_transform = nn.Parameter(torch.eye(dim))

    def forward(self, memory: Tensor, layout: Layout) -> Tensor:
        """Return filtered patches: ``(N, hw, E) -> (N, hw, E)``."""
        (height, width), side = layout.grid, self.window
        maps = memory.unflatten(1, layout.grid)  # (N, h, w, E)
        maps = F.pad(maps, (0, 0, 0, -width % side, 0, -height % side))
        mixed = torch.cat([self._high(maps), self._low(maps)], dim=-1)
        mixed = mixed[:, :height, :width].flatten(1, 2)
        shown = F.cosine_similarity(mixed, self.prompt, dim=-1).clamp(0, 1)
        return (mixed * shown.unsqueeze(-1)) @ self.top_down_transform

    def _high(self, maps: Tensor) -> Tensor:
        """Attend within windows: ``(N, h, w, E) -> (N, h, w, heads * d)``."""
        side = self.window
        cells = (maps.shape[1] // side, maps.shape[2] // side)
        qkv = self.h_qkv(maps).unflatten(2, (cells[1], side))
        qkv = qkv.unflatten(1, (cells[0], side)).transpose(2, 3).flatten(3, 4)
        heads = qkv.unflatten(-1, (3, self.high_heads, -1))  # (N, a, b, s * s, 3, H, d)
        q, k, v = heads.permute(4, 0, 1, 2, 5, 3, 6).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (N, a, b, H, s * s, d)
        mixed = mixed.transpose(3, 4).flatten(4).unflatten(3, (side, side))
        return mixed.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _low(self, maps: Tensor) -> Tensor:
        """Attend to means of windows: ``(N, h, w, E) -> (N, h, w, heads * d)``."""
        grid = maps.shape[1:3]
        means = F.avg_pool2d(maps.permute(0, 3, 1, 2), self.window)
        kv = self.l_kv(means.flatten(2).transpose(1, 2))
        k, v = kv.unflatten(-1, (2, self.low_heads, -1)).permute(2, 0, 3, 1, 4)
        q = self.l_q(maps.flatten(1, 2)).unflatten(-1, (self.low_heads, -1))
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k, v)
        return self.l_proj(mixed.transpose(1, 2).flatten(2)).unflatten(1, grid)


class HiLoAttention(nn.Module):
    """Attention of queries to patches of a :class:`HiLoFilter`, the same for all.

    ``map = y q`` without projections or scale, ``out = proj(softmax(map) y)``.
    """

    def __init__(
        self, dim: int, num_heads: int, *, dropout: float = 0.1, **options: Any
    ) -> None:
        super().__init__()
        self.filter = HiLoFilter(dim, num_heads, **options)
        self.proj = nn.Linear(dim, dim)
        self.dropout = dropout

    def forward(
        self, query: Tensor, memory: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """Attend with queries ``(N, Q * P, E)`` to patches ``(N, M, E)``.

        Returns the attended values ``(N, Q * P, E)`` and the masks ``(N, Q, M)``.
        """
        patches = self.filter(memory, layout)
        masks = query @ patches.transpose(1, 2)
        weights = F.dropout(masks.softmax(dim=-1), self.dropout, self.training)
        return self.proj(weights @ patches), mean_of_rows(masks, layout)


class HiLoMatching(nn.Module):
    """The map of :class:`HiLoAttention` alone."""

    def __init__(self, dim: int, num_heads: int, **options: Any) -> None:
        super().__init__()
        self.filter = HiLoFilter(dim, num_heads, **options)

    def forward(self, query: Tensor, memory: Tensor, layout: Layout) -> Tensor:
        """Return mask logits ``(N, Q, M)`` of queries ``(N, Q * P, E)``."""
        patches = self.filter(memory, layout)
        return mean_of_rows(query @ patches.transpose(1, 2), layout)


class DotMatching(nn.Module):
    """Masks of refined queries and patches as they are: ``q v^T``, not scaled."""

    def forward(self, query: Tensor, memory: Tensor, layout: Layout) -> Tensor:
        """Return mask logits ``(N, Q, M)`` of queries ``(N, Q * P, E)``."""
        return mean_of_rows(query @ memory.transpose(1, 2), layout)


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
    'hilo': AttentionKind(HiLoAttention, HiLoMatching),
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


class SelfAttention(nn.Module):
    """Queries attend to each other, post-norm; scores then depend on all classes."""

    def __init__(self, dim: int, num_heads: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(
            dim, num_heads, dropout=dropout, batch_first=True
        )
        self.norm = nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, query: Tensor) -> Tensor:
        """Return queries of the same shape, ``(N, Q * P, E)``."""
        attended = self.attn(query, query, query, need_weights=False)[0]
        return self.norm(query + self.drop(attended))


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


class Decoded(NamedTuple):
    """What comes out of a decoder.

    Attributes:
        masks: logits ``(N, Q, M)`` of every layer; the last entry is the result, the
            others serve deep supervision and gates.
        query: queries after the layers, ``(N, Q * P, E)``.
        memory: patches after the layers, ``(N, M, E)``.
    """

    masks: list[Tensor]
    query: Tensor
    memory: Tensor


class MaskDecoder(nn.Module):
    """A stack of :class:`MaskDecoderLayer` that ends in a matching layer.

    Queries never look at each other, so any subset of the classes gives the rows that
    the whole vocabulary gives; ``two_way`` and ``self_attn_layers`` end that.
    ``num_layers`` counts the last one, too. With ``identical_layers`` all layers start
    as copies of the first, as in the official code; else each is drawn on its own.

    ``attention`` is one of :data:`ATTENTIONS`, or a dict with ``type`` and options.
    ``mask_from`` says what the masks are: the ``'attention'`` before any softmax, as a
    mean over heads and rows, or of a transport ``'plan'`` the similarity that it moves.
    With ``'dot'`` all layers are whole, and :class:`DotMatching` comes after each.
    With ``merge_layers='gate'`` the result is :func:`gated` by the earlier layers.

    With ``two_way`` (CLIP-RC) patches attend to queries by softmax while queries
    attend to patches, both as they were before the layer. The layers of
    ``self_attn_layers`` (TagCLIP) begin with a :class:`SelfAttention`.
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
        two_way: bool = False,
        self_attn_layers: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.dim = dim
        self.merge_layers = choose('merge_layers', merge_layers, LAYER_MERGES)
        if num_layers < 1:
            raise ValueError(f'num_layers must be at least 1, not {num_layers}')
        self.from_dot = mask_from == 'dot'
        if two_way and num_layers == 1 and not self.from_dot:
            raise ValueError(
                f'two_way=True has no layer to act in with num_layers=1 and mask_from='
                f"{mask_from!r}: set num_layers=2 or more, or mask_from='dot'"
            )
        wrong = [i for i in self_attn_layers if not 0 <= i < num_layers]
        if wrong or len(set(self_attn_layers)) != len(self_attn_layers):
            raise ValueError(
                f'self_attn_layers={tuple(self_attn_layers)} must be different layers '
                f'from 0 to {num_layers - 1}'
            )
        options = dict(type=attention) if isinstance(attention, str) else {**attention}
        self.attention = str(options.pop('type', None))
        kind = ATTENTIONS[choose('attention', self.attention, ATTENTIONS)]
        known = (*kind.masks, 'dot')
        choose(f'mask_from with attention={self.attention!r}', mask_from, known)
        if len(kind.masks) > 1 and not self.from_dot:
            options['mask_from'] = mask_from
        sizes: dict[str, Any] = dict(ffn_dim=ffn_dim or 4 * dim, dropout=dropout)
        layers = [
            MaskDecoderLayer(
                kind.attention(dim, num_heads, dropout=dropout, **options),
                dim,
                **sizes,
            )
            for _ in range(num_layers if self.from_dot else num_layers - 1)
        ]
        matching: nn.Module = DotMatching()
        if not self.from_dot:
            matching = kind.matching(dim, num_heads, **options)
        back = [
            MaskDecoderLayer(
                CrossAttention(dim, num_heads, dropout=dropout), dim, **sizes
            )
            for _ in range(two_way * len(layers))
        ]
        if identical_layers and layers:
            first = layers[0]
            layers = [first, *(copy.deepcopy(first) for _ in layers[1:])]
            # It has some of the attention's parameters, under the same names.
            matching.load_state_dict(first.attn.state_dict(), strict=False)
            back = [copy.deepcopy(back[0]) for _ in back]
        self.layers = nn.ModuleList(layers)
        self.matching = matching
        #: Of patches that attend to queries, one for each layer.
        self.memory_layers = nn.ModuleList(back)
        self.self_attentions = nn.ModuleDict(
            {
                str(index): SelfAttention(dim, num_heads, dropout=dropout)
                for index in sorted(self_attn_layers)
            }
        )

    @torch.no_grad()
    def start_as_cosine(self, scale: float) -> None:
        """Make the result ``scale`` times the cosine of query and patch.

        Residual branches start at zero, so that a query passes nothing but norms, which
        centre it, and the last layer's projections, with gates those of all layers,
        start as multiples of the identity; where masks are products of what comes out,
        the last norm of the queries has the scale. Patches must have length one, and
        queries, too.
        """
        if not (self.from_dot or hasattr(self.matching, 'start_as_cosine')):
            raise ValueError(
                f'cosine_start={scale} is not for attention={self.attention!r}: set it '
                'to None'
            )
        branches: list[Any] = [
            each.attn.out_proj  # type: ignore[union-attr]
            for each in self.self_attentions.values()
        ]
        starts: list[Callable[[], Any]] = []
        query_length = memory_length = 1.0
        normed = self.dim**0.5
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, MaskDecoderLayer)  # a ModuleList does not know
            if str(index) in self.self_attentions:
                query_length = normed
            if not self.from_dot:
                length = query_length * memory_length
                starts.append(partial(layer.attn.start_as_cosine, scale, length))
            query_length = normed
            if self.memory_layers:
                memory_length = normed
            if self.from_dot:
                factor = scale / (query_length * memory_length)
                starts.append(partial(nn.init.constant_, layer.norm3.weight, factor))
        for layer in [*self.layers, *self.memory_layers]:
            branches += [layer.attn.proj, layer.linear2]
        for branch in branches:
            nn.init.zeros_(branch.weight)
            nn.init.zeros_(branch.bias)
        if not self.from_dot:
            if str(len(self.layers)) in self.self_attentions:
                query_length = normed
            length = query_length * memory_length
            starts.append(partial(self.matching.start_as_cosine, scale, length))
        for start in starts if self.merge_layers == 'gate' else starts[-1:]:
            start()

    def forward(self, query: Tensor, memory: Tensor, layout: Layout) -> Decoded:
        """Match queries ``(N, Q * P, E)`` to patches ``(N, M, E)``."""
        masks: list[Tensor] = []
        single = Layout(layout.grid)
        for index, layer in enumerate(self.layers):
            before = query
            query, mask = layer(self._after_self(index, query), memory, layout)
            if self.memory_layers:
                memory, _ = self.memory_layers[index](memory, before, single)
            if self.from_dot:
                mask = self.matching(query, memory, layout)
            masks.append(mask)
        if not self.from_dot:
            last = self._after_self(len(self.layers), query)
            masks.append(self.matching(last, memory, layout))
        if self.merge_layers == 'gate':
            masks[-1] = gated(masks)
        return Decoded(masks, query, memory)

    def _after_self(self, layer: int, query: Tensor) -> Tensor:
        """Let queries attend to each other before a layer, if they do there."""
        key = str(layer)
        if key not in self.self_attentions:
            return query
        return self.self_attentions[key](query)


class RecoveryDecoder(nn.Module):
    """Brings back what went into a decoder from what came out, as in CLIP-RC.

    ``q = W1 q_L, v = W2 v_L``, two-way layers as in :class:`MaskDecoder`, then ``q W3``
    of the width of the descriptors and ``v W4``. In training alone; weights start
    normal with deviation 0.02, and biases at zero, as in the official code.
    """

    def __init__(
        self,
        dim: int,
        described_dim: int,
        *,
        num_layers: int = 1,
        num_heads: int = 8,
        ffn_dim: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ConfigError(
                f'decode_head.recovery.num_layers must be at least 1, not {num_layers}'
            )
        self.linear_q_in = nn.Linear(dim, dim)
        self.linear_k_in = nn.Linear(dim, dim)
        self.decouple_q, self.decouple_v = (
            nn.ModuleList(
                MaskDecoderLayer(
                    CrossAttention(dim, num_heads, dropout=dropout),
                    dim,
                    ffn_dim=ffn_dim or 4 * dim,
                    dropout=dropout,
                )
                for _ in range(num_layers)
            )
            for _ in range(2)
        )
        self.linear_q_out = nn.Linear(dim, described_dim)
        self.linear_k_out = nn.Linear(dim, dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(
        self, query: Tensor, memory: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """Return recovered descriptors ``(N, Q * P, D)`` and patches ``(N, M, E)``.

        From queries ``(N, Q * P, E)`` and patches ``(N, M, E)`` after a decoder.
        """
        query, memory = self.linear_q_in(query), self.linear_k_in(memory)
        single = Layout(layout.grid)
        for layer, back in zip(self.decouple_q, self.decouple_v, strict=True):
            after, _ = layer(query, memory, single)
            memory, query = back(memory, query, single)[0], after
        return self.linear_q_out(query), self.linear_k_out(memory)
