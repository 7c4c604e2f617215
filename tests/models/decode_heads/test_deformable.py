"""Deformable attention against a sum over places, one by one."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zs3_mmseg.models.decode_heads.deformable import weighted_samples

SIZES = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3
)


def read(cells: Tensor, size: tuple[int, int], x: float, y: float) -> Tensor:
    """Read a map ``(hw, C)`` bilinearly at a point, 0 outside."""
    height, width = size
    column, row = x * width - 0.5, y * height - 0.5
    total = torch.zeros(cells.shape[1])
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < height and 0 <= c < width:
                share = (1 - abs(row - r)) * (1 - abs(column - c))
                total += share * cells[r * width + c]
    return total


@settings(max_examples=25, deadline=None)
@given(SIZES, st.integers(1, 3), st.integers(1, 3), st.integers(0, 10**6))
def test_the_sum_of_all_places(
    sizes: list[tuple[int, int]], heads: int, points: int, seed: int
) -> None:
    torch.manual_seed(seed)
    cells = sum(height * width for height, width in sizes)
    values = torch.randn(2, cells, 2 * heads)
    where = 1.6 * torch.rand(2, 3, heads, len(sizes), points, 2) - 0.3
    weights = torch.rand(2, 3, heads, len(sizes), points)
    expected = torch.zeros(2, 3, heads, 2)
    maps = values.split([height * width for height, width in sizes], dim=1)
    for place in torch.cartesian_prod(
        *(torch.arange(count) for count in weights.shape)
    ).reshape(-1, weights.ndim):
        image, query, head, level, _ = index = tuple(place.tolist())
        own = maps[level][image, :, 2 * head : 2 * head + 2]
        x, y = where[index].tolist()
        seen = read(own, sizes[level], x, y)
        expected[image, query, head] += weights[index] * seen
    found = weighted_samples(values, sizes, where, weights)
    torch.testing.assert_close(found, expected.flatten(2), rtol=1e-4, atol=1e-5)
