"""Attention that looks at a few places of several maps, and masks' features of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcv.cnn import ConvModule

from .query_masks import draw_conv, sine_positions

Size = tuple[int, int]


class DeformableAttention(nn.Module):
    r"""Multi-scale deformable attention (arXiv 2010.04159, equation 3) in plain torch.

    A query :math:`q` with a reference point :math:`p_l` on each of ``L`` maps reads,
    for each head :math:`k`, ``P`` places of each map:

    .. math:: W \, \mathrm{concat}_k \sum_{l, i} a_{kli}(q)\;
        (V x_l)_k\bigl(p_l + d_{kli}(q) / (w_l, h_l)\bigr),

    with offsets :math:`d` and weights :math:`a` linear in :math:`q`, the weights a
    softmax over all ``LP`` places of a head. Maps are read bilinearly at cell centres,
    and are 0 outside.

    Args:
        channels: of queries and maps.
        num_heads: it divides ``channels``.
        num_levels: ``L``.
        num_points: ``P``.

    Raises:
        ValueError: if heads do not divide the channels.
    """

    def __init__(
        self, channels: int, num_heads: int, *, num_levels: int, num_points: int
    ) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(
                f'num_heads={num_heads} does not divide {channels} channels'
            )
        self.grid = (num_heads, num_levels, num_points)
        places = math.prod(self.grid)
        self.sampling_offsets = nn.Linear(channels, 2 * places)
        self.attention_weights = nn.Linear(channels, places)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.draw()

    def draw(self) -> None:
        """Draw weights: at first each head looks into a direction of its own.

        Point ``i`` of head ``k`` lies at angle ``2 pi k / heads``, ``i`` cells away as
        the king moves.
        """
        heads, levels, points = self.grid
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        angles = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
        ways = torch.stack([angles.cos(), angles.sin()], dim=1)
        ways = ways / ways.abs().amax(dim=1, keepdim=True)
        steps = torch.arange(1, points + 1, dtype=torch.float32)
        offsets = (ways[:, None, None] * steps[:, None]).expand(-1, levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def places(
        self, queries: Tensor, references: Tensor, sizes: Sequence[Size]
    ) -> tuple[Tensor, Tensor]:
        """Return where queries look, and how much each place counts.

        Returns:
            points ``(N, Q, heads, L, P, 2)`` and weights ``(N, Q, heads, L, P)``.
        """
        offsets = self.sampling_offsets(queries).unflatten(2, (*self.grid, 2))
        scale = offsets.new_tensor([(width, height) for height, width in sizes])
        points = references[:, :, None, :, None] + offsets / scale[:, None]
        weights = self.attention_weights(queries).unflatten(2, (self.grid[0], -1))
        return points, weights.softmax(dim=-1).unflatten(3, self.grid[1:])

    def forward(
        self,
        queries: Tensor,
        references: Tensor,
        values: Tensor,
        sizes: Sequence[Size],
        padding: Tensor | None = None,
    ) -> Tensor:
        """Look at the maps.

        Args:
            queries: ``(N, Q, C)``.
            references: ``(N, Q, L, 2)``, x and y, 0..1 inside a map.
            values: the cells of all maps, ``(N, S, C)``.
            sizes: height and width of each map, in the order of ``values``.
            padding: ``(N, S)`` bool, cells that hold nothing.

        Returns:
            ``(N, Q, C)``.
        """
        values = self.value_proj(values)
        if padding is not None:
            values = values.masked_fill(padding[..., None], 0)
        points, weights = self.places(queries, references, sizes)
        return self.output_proj(weighted_samples(values, sizes, points, weights))


def weighted_samples(
    values: Tensor, sizes: Sequence[Size], points: Tensor, weights: Tensor
) -> Tensor:
    """Return the weighted sums ``(N, Q, C)`` of what lies at points of maps.

    Args:
        values: ``(N, S, C)``, the cells of all maps.
        sizes: height and width of each.
        points: ``(N, Q, heads, L, P, 2)``, x and y, 0..1 inside a map.
        weights: ``(N, Q, heads, L, P)``.
    """
    heads = points.shape[2]
    maps = values.split([height * width for height, width in sizes], dim=1)
    total = torch.zeros((), device=values.device)
    for level, (cells, size) in enumerate(zip(maps, sizes, strict=True)):
        # Of each head: (N heads, C / heads, h, w).
        shown = cells.transpose(1, 2).unflatten(2, size).unflatten(1, (heads, -1))
        where = 2 * points[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        read = F.grid_sample(shown.flatten(0, 1), where, align_corners=False)
        share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (N heads, Q, P)
        total = total + (read * share[:, None]).sum(dim=-1)
    return total.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2)


class DeformableLayer(nn.Module):
    """Cells that look around on all maps, then into themselves, with norms behind."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
        *,
        num_levels: int,
        num_points: int,
    ) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(
            channels, num_heads, num_levels=num_levels, num_points=num_points
        )
        self.linear1 = nn.Linear(channels, feedforward_channels)
        self.linear2 = nn.Linear(feedforward_channels, channels)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def draw(self) -> None:
        """Draw weights as the official code does."""
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)
        self.self_attn.draw()

    def forward(
        self,
        cells: Tensor,
        positions: Tensor,
        references: Tensor,
        sizes: Sequence[Size],
    ) -> Tensor:
        """Return the next contents of cells ``(N, S, C)``; only queries get places."""
        seen = self.self_attn(cells + positions, references, cells, sizes)
        cells = self.norm1(cells + self.dropout(seen))
        inner = self.dropout(self.linear1(cells).relu())
        return self.norm2(cells + self.dropout(self.linear2(inner)))


class DeformablePixelDecoder(nn.Module):
    """The pixel decoder of Mask2Former (arXiv 2112.01527, section 3.2.2).

    The cells of the coarser three maps look at each other by deformable attention. The
    finest of the results, brought bilinearly to the size of the first map and summed
    with it, makes the mask features. Sums are in fp32, under autocast too.

    Args:
        in_channels: of the four maps, fine to coarse.
        channels: of the results.
        out_channels: of the mask features.
        num_layers: of the encoder.
        num_heads: of its attentions; it divides ``channels``.
        num_points: that a head reads on each map.
        feedforward_channels: inside its layers.
        dropout: in its layers.
        num_groups: of the group norms; it divides ``channels``.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        out_channels: int,
        *,
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int = 4,
        feedforward_channels: int = 1024,
        dropout: float = 0.0,
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        norm = dict(type='GN', num_groups=num_groups)
        finest, *coarser = in_channels
        # Coarse to fine, like all that is done with these maps.
        self.input_proj = nn.ModuleList(
            ConvModule(width, channels, 1, bias=True, norm_cfg=norm, act_cfg=None)
            for width in reversed(coarser)
        )
        self.level_embed = nn.Parameter(torch.empty(len(coarser), channels))
        self.layers = nn.ModuleList(
            DeformableLayer(
                channels,
                num_heads,
                feedforward_channels,
                dropout,
                num_levels=len(coarser),
                num_points=num_points,
            )
            for _ in range(num_layers)
        )
        self.lateral = ConvModule(
            finest, channels, 1, bias=False, norm_cfg=norm, act_cfg=None
        )
        self.output = ConvModule(
            channels, channels, 3, padding=1, bias=False, norm_cfg=norm
        )
        self.mask_features = nn.Conv2d(channels, out_channels, 1)
        self.draw()

    def draw(self) -> None:
        """Draw weights as the official code does."""
        nn.init.normal_(self.level_embed)
        for module in self.modules():
            if isinstance(module, DeformableLayer):
                module.draw()
        for module in self.input_proj.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for conv in (self.lateral.conv, self.output.conv, self.mask_features):
            draw_conv(conv)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Decode the four maps, fine to coarse.

        Returns:
            mask features ``(N, out_channels, h, w)`` at the size of the first map, and
            the three results ``(N, channels, h, w)``, coarse to fine.
        """
        with torch.autocast(maps[0].device.type, enabled=False):
            finest, *coarser = (each.float() for each in maps)
            projected = self.projected(coarser[::-1])
            cells, positions, references = self.cells(projected)
            sizes: list[Size] = [(p.shape[2], p.shape[3]) for p in projected]
            for layer in self.layers:
                cells = layer(cells, positions, references, sizes)
            parts = cells.split([height * width for height, width in sizes], dim=1)
            found = [
                part.transpose(1, 2).unflatten(2, size)
                for part, size in zip(parts, sizes, strict=True)
            ]
            coarse = F.interpolate(
                found[-1], size=finest.shape[-2:], mode='bilinear', align_corners=False
            )
            return self.mask_features(self.output(self.lateral(finest) + coarse)), found

    def projected(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return maps, coarse to fine, of ``channels`` each.

        A bias is added behind the sums over channels, as the official code rounds: with
        few cells the norms magnify what float32 leaves of almost constant maps.
        """
        found = []
        for block, each in zip(self.input_proj, maps, strict=True):
            conv: Any = block.conv
            sums = F.conv2d(each, conv.weight) + conv.bias[:, None, None]
            norm: Any = block.norm
            found.append(norm(sums))
        return found

    def cells(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the cells of maps ``(N, S, C)``, their places' code, and centres.

        Centres are ``(1, S, L, 2)``, the same on every map.
        """
        cells = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1)
        codes = [
            sine_positions(each).flatten(2).transpose(1, 2) + level
            for each, level in zip(maps, self.level_embed, strict=True)
        ]
        centres = torch.cat([cell_centres(each) for each in maps])
        return (
            cells,
            torch.cat(codes, dim=1),
            centres[None, :, None].expand(-1, -1, len(maps), -1),
        )


def cell_centres(maps: Tensor) -> Tensor:
    """Return x and y of each cell of maps ``(N, C, h, w)``, 0..1, ``(hw, 2)``."""
    height, width = maps.shape[-2:]
    rows = (torch.arange(height, device=maps.device) + 0.5) / height
    columns = (torch.arange(width, device=maps.device) + 0.5) / width
    y, x = torch.meshgrid(rows, columns, indexing='ij')
    return torch.stack([x, y], dim=-1).flatten(0, 1)
