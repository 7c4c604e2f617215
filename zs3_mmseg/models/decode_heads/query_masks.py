"""Masks from queries: a plain FPN, and decoders whose queries look for masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcv.cnn import ConvModule


class FPNPixelDecoder(nn.Module):
    """Top-down sums of a backbone's maps, and mask features at the finest of them.

    ``y_n = conv(x_n)`` of the coarsest map, then ``y_i = conv(lateral(x_i) + y_{i+1})``
    with the coarser map brought to the exact size of the finer one by nearest neighbour
    (arXiv 1612.03144), each followed by a group norm. Mask features are one more
    convolution of ``y_1``.

    Args:
        in_channels: of the maps, fine to coarse.
        channels: of the sums.
        out_channels: of the mask features.
        num_groups: of the group norms; it divides ``channels``.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        out_channels: int,
        *,
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        norm = dict(type='GN', num_groups=num_groups)
        *finer, coarsest = in_channels
        self.laterals = nn.ModuleList(
            ConvModule(width, channels, 1, bias=False, norm_cfg=norm, act_cfg=None)
            for width in finer
        )
        self.outputs = nn.ModuleList(
            ConvModule(width, channels, 3, padding=1, bias=False, norm_cfg=norm)
            for width in [channels] * len(finer) + [coarsest]
        )
        self.mask_features = nn.Conv2d(channels, out_channels, 3, padding=1)

    def draw(self) -> None:
        """Draw weights as the official code does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                draw_conv(module)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Decode maps, fine to coarse.

        Returns:
            mask features ``(N, out_channels, h, w)`` at the size of the first map, and
            all sums ``(N, channels, h, w)`` but the finest, coarse to fine.
        """
        *finer, coarsest = maps
        sums = [self.outputs[-1](coarsest)]
        for level in reversed(range(len(finer))):
            size = finer[level].shape[-2:]
            coarser = F.interpolate(sums[-1], size=size, mode='nearest')
            lateral = self.laterals[level](finer[level])
            sums.append(self.outputs[level](lateral + coarser))
        return self.mask_features(sums[-1]), sums[:-1]


def draw_conv(conv: nn.Conv2d) -> None:
    """Draw a convolution uniformly with variance ``1 / fan_in``; its bias is 0."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def sine_positions(maps: Tensor, temperature: float = 10000.0) -> Tensor:
    """Return the sine code of the places in maps ``(N, C, h, w)``, ``(1, C, h, w)``.

    The first half of the channels tells the row, the second the column: of ``y`` from 1
    to ``h``, scaled to ``2 pi y / (h + 1e-6)``, sine and cosine in turn of frequencies
    that fall from 1 to ``1 / temperature`` (DETR, arXiv 2005.12872).
    """
    _, channels, height, width = maps.shape
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=maps.device)
    frequencies = temperature ** (2 * (steps // 2) / half)

    def code(length: int) -> Tensor:
        places = torch.arange(1, length + 1, dtype=torch.float32, device=maps.device)
        angles = (places / (length + 1e-6) * 2 * math.pi)[:, None] / frequencies
        both = torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2)
        return both.flatten(1).T  # (C / 2, length)

    rows = code(height)[:, :, None].expand(-1, -1, width)
    columns = code(width)[:, None].expand(-1, height, -1)
    return torch.cat([rows, columns])[None].to(maps.dtype)


class QueryLayer(nn.Module):
    """Queries that look at each other, then at a map, then into themselves.

    The decoder layer of DETR, each step with a sum and a layer norm behind it.
    ``nn.TransformerDecoderLayer`` cannot add positions to keys and not to values.
    """

    def __init__(
        self, channels: int, num_heads: int, feedforward_channels: int, dropout: float
    ) -> None:
        super().__init__()
        common = dict(dropout=dropout, batch_first=True)
        self.self_attn = nn.MultiheadAttention(channels, num_heads, **common)
        self.multihead_attn = nn.MultiheadAttention(channels, num_heads, **common)
        self.linear1 = nn.Linear(channels, feedforward_channels)
        self.linear2 = nn.Linear(feedforward_channels, channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: Tensor, places: Tensor, memory: Tensor, keys: Tensor
    ) -> Tensor:
        """Return the queries' next contents.

        Args:
            queries: contents ``(N, M, C)``.
            places: what is added to them wherever they are asked, ``(N, M, C)``.
            memory: the map's values ``(N, hw, C)``.
            keys: the same with positions added.
        """
        queries = self._at_each_other(queries, places)
        return self._inside(self._at_map(queries, places, memory, keys))

    def _at_each_other(self, queries: Tensor, places: Tensor) -> Tensor:
        asked = queries + places
        seen = self.self_attn(asked, asked, queries, need_weights=False)[0]
        return self.norm1(queries + self.dropout(seen))

    def _at_map(
        self,
        queries: Tensor,
        places: Tensor,
        memory: Tensor,
        keys: Tensor,
        blocked: Tensor | None = None,
    ) -> Tensor:
        asked = queries + places
        seen = self.multihead_attn(
            asked, keys, memory, need_weights=False, attn_mask=blocked
        )[0]
        return self.norm2(queries + self.dropout(seen))

    def _inside(self, queries: Tensor) -> Tensor:
        inner = self.dropout(self.linear1(queries).relu())
        return self.norm3(queries + self.dropout(self.linear2(inner)))


class MaskedQueryLayer(QueryLayer):
    """Queries that look at some cells of a map, then at each other, then inside.

    The decoder layer of Mask2Former (arXiv 2112.01527, section 3.2.1).
    """

    def forward(  # type: ignore[override]
        self,
        queries: Tensor,
        places: Tensor,
        memory: Tensor,
        keys: Tensor,
        blocked: Tensor,
    ) -> Tensor:
        """Return the queries' next contents; what is not said is as above.

        ``blocked`` ``(N, M, hw)`` bool are cells that a query does not see; one that
        would see none sees all.
        """
        blocked = blocked & ~blocked.all(dim=-1, keepdim=True)
        blocked = blocked.repeat_interleave(self.multihead_attn.num_heads, dim=0)
        queries = self._at_map(queries, places, memory, keys, blocked)
        return self._inside(self._at_each_other(queries, places))


class QueryDecoder(nn.Module):
    """The decoder of DETR (arXiv 2005.12872) on one map, without an encoder.

    Contents of the queries start at zero, their learned places are added in every
    layer, and one norm makes the output of each layer.

    Args:
        in_channels: of the map; a 1x1 convolution changes them if they differ.
        channels: of queries and memory.
        num_queries: ``M``.
        num_layers: ``L``.
        num_heads: of both attentions.
        feedforward_channels: inside each layer.
        dropout: share of values dropped in training.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        num_queries: int,
        num_layers: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.input_proj = (
            nn.Identity()
            if in_channels == channels
            else nn.Conv2d(in_channels, channels, 1)
        )
        self.query_embed = nn.Embedding(num_queries, channels)
        self.layers = nn.ModuleList(
            QueryLayer(channels, num_heads, feedforward_channels, dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels)

    def draw(self) -> None:
        """Draw weights as the official code does."""
        self.query_embed.reset_parameters()
        if isinstance(self.input_proj, nn.Conv2d):
            draw_conv(self.input_proj)
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, maps: Tensor) -> Tensor:
        """Return queries ``(L, N, M, channels)`` by layer, of ``(N, C, h, w)``."""
        projected = self.input_proj(maps)
        positions = sine_positions(projected).flatten(2).transpose(1, 2)
        memory = projected.flatten(2).transpose(1, 2)
        places = self.query_embed.weight.expand(maps.shape[0], -1, -1)
        queries, found = torch.zeros_like(places), []
        for layer in self.layers:
            queries = layer(queries, places, memory, memory + positions)
            found.append(self.norm(queries))
        return torch.stack(found)


class MaskedQueryDecoder(nn.Module):
    """The decoder of Mask2Former (arXiv 2112.01527, section 3.2): queries have masks.

    Contents and places of the queries are learned. A query's mask is the product of
    ``mask_embed`` of it and the mask features, from the start and after each layer;
    layer ``i`` looks at map ``i`` modulo their number, and only where the last mask,
    resized to the map, is at least 1/2.

    Args:
        in_channels: of each map; a 1x1 convolution changes them if they differ.
        channels: of queries and memory.
        mask_channels: of the mask features.
        num_queries: ``M``.
        num_layers: ``L``.
        num_heads: of both attentions.
        feedforward_channels: inside each layer.
        dropout: share of values dropped in training.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        mask_channels: int,
        *,
        num_queries: int,
        num_layers: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.input_proj = nn.ModuleList(
            nn.Identity() if width == channels else nn.Conv2d(width, channels, 1)
            for width in in_channels
        )
        self.query_feat = nn.Embedding(num_queries, channels)
        self.query_embed = nn.Embedding(num_queries, channels)
        self.level_embed = nn.Embedding(len(in_channels), channels)
        self.layers = nn.ModuleList(
            MaskedQueryLayer(channels, num_heads, feedforward_channels, dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.mask_embed = MLP(channels, channels, channels, mask_channels)

    def draw(self) -> None:
        """Draw weights as the official code does."""
        for embedding in (self.query_feat, self.query_embed, self.level_embed):
            embedding.reset_parameters()
        for project in self.input_proj:
            if isinstance(project, nn.Conv2d):
                draw_conv(project)
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, maps: Sequence[Tensor], features: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield queries ``(N, M, C)`` and masks ``(N, M, h, w)``, ``L + 1`` times.

        Args:
            maps: ``(N, C', h', w')``.
            features: mask features ``(N, mask_channels, h, w)``; masks are logits.
        """
        memories, keys = [], []
        for project, each, level in zip(
            self.input_proj, maps, self.level_embed.weight, strict=True
        ):
            projected = project(each)
            memory = projected.flatten(2).transpose(1, 2) + level
            memories.append(memory)
            places = sine_positions(projected).flatten(2).transpose(1, 2)
            keys.append(memory + places)
        count = len(features)
        queries = self.query_feat.weight.expand(count, -1, -1)
        places = self.query_embed.weight.expand(count, -1, -1)
        found = self._found(queries, features)
        yield found
        for index, layer in enumerate(self.layers):
            level = index % len(maps)
            blocked = cells_outside(found[1], maps[level].shape[-2:])
            queries = layer(queries, places, memories[level], keys[level], blocked)
            found = self._found(queries, features)
            yield found

    def _found(self, queries: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries behind the norm, and their masks."""
        normed = self.norm(queries)
        masks = self.mask_embed(normed) @ features.flatten(2)
        return normed, masks.unflatten(2, features.shape[-2:])


def resized(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Resize masks ``(N, M, h, w)`` bilinearly; of the right size they stay."""
    if masks.shape[-2:] == torch.Size(size):
        return masks
    return F.interpolate(masks, size=tuple(size), mode='bilinear', align_corners=False)


@torch.no_grad()
def cells_outside(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Return which cells of a map mask logits leave out, ``(N, M, hw)`` bool."""
    return resized(masks, size).sigmoid().flatten(2) < 0.5


@torch.no_grad()
def cells_inside(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Return which cells of a map mask logits cover, ``(N, M, hw)`` bool."""
    return resized(masks, size).flatten(2) > 0


def pooled(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the means ``(N, M, C)`` of maps ``(N, C, h, w)`` in masks.

    Of masks ``(N, M, h', w')``, logits, cells above 0 count; 1e-8 is added to their
    number, so that an empty mask gives 0 (arXiv 2308.02487, section 3.3). Masks get no
    gradient.
    """
    inside = cells_inside(masks, maps.shape[-2:]).to(maps)
    shares = inside / (inside.sum(dim=2, keepdim=True) + 1e-8)
    return shares @ maps.flatten(2).transpose(1, 2)


class MLP(nn.Sequential):
    """Linear layers with a ReLU between them."""

    def __init__(self, *channels: int) -> None:
        layers: list[nn.Module] = []
        for width, out in pairwise(channels):
            layers += [nn.Linear(width, out), nn.ReLU()]
        super().__init__(*layers[:-1])
