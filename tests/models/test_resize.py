"""Two small matrix products against torch's own bilinear resizing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from zs3_mmseg.models.resize import MOST_PRODUCTS, resize_by_products

sides = st.integers(1, 24)


sizes = st.tuples(sides, sides)


@given(small=sizes, large=sizes, align=st.booleans())
def test_values_and_gradients_are_those_of_interpolate(small, large, align) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, *small, generator=generator).requires_grad_()
    weights = torch.randn(2, 3, *large, generator=generator)
    expected = F.interpolate(maps, large, mode='bilinear', align_corners=align)
    found = resize_by_products(maps, large, align)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    gradients = [
        torch.autograd.grad((result * weights).sum(), maps)[0]
        for result in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=5e-5)


def test_large_maps_take_the_kernel_of_torch() -> None:
    maps = torch.randn(1, 1, MOST_PRODUCTS, MOST_PRODUCTS)
    size = (2 * MOST_PRODUCTS, 2 * MOST_PRODUCTS)
    expected = F.interpolate(maps, size, mode='bilinear', align_corners=False)
    assert torch.equal(resize_by_products(maps, size, False), expected)
