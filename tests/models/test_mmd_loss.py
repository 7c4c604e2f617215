"""MMD against its definition, row by row in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zs3_mmseg.models.losses import MMDLoss


def mean_kernel(
    one: Tensor, other: Tensor, variances: list[float], skip: bool
) -> float:
    """Average over pairs, leaving out those of a row with itself if asked."""
    values = [
        sum(torch.exp(-(x - y).square().sum() / (2 * v)).item() for v in variances)
        for i, x in enumerate(one)
        for j, y in enumerate(other)
        if not (skip and i == j)
    ]
    return sum(values) / len(values)


def by_definition(
    generated: Tensor, real: Tensor, variances: list[float], unbiased: bool
) -> float:
    return (
        mean_kernel(generated, generated, variances, unbiased)
        + mean_kernel(real, real, variances, unbiased)
        - 2 * mean_kernel(generated, real, variances, False)
    )


@given(
    seed=st.integers(0, 999),
    rows=st.tuples(st.integers(2, 6), st.integers(2, 6)),
    offset=st.sampled_from([0.0, 300.0]),
    unbiased=st.booleans(),
)
def test_equals_the_definition_wherever_the_features_lie(
    seed: int, rows: tuple[int, int], offset: float, unbiased: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    generated, real = (torch.randn(n, 3, generator=generator) + offset for n in rows)
    loss = MMDLoss([0.5, 3.0], root=False, unbiased=unbiased)
    expected = by_definition(generated.double(), real.double(), [0.5, 3.0], unbiased)
    assert loss(generated, real).item() == pytest.approx(expected, abs=2e-4)


def test_relative_bandwidths_do_not_see_the_scale_of_features() -> None:
    generated, real = torch.randn(9, 4), torch.randn(7, 4) + 1
    relative = MMDLoss([0.5, 1.0], relative=True)
    assert torch.isclose(
        relative(generated * 50, real * 50), relative(generated, real), rtol=1e-4
    )
    distances = torch.cdist(real, real).square()
    spread = distances.sum().item() / (7 * 6)
    absolute = MMDLoss([0.5 * spread, 1.0 * spread])
    assert torch.isclose(
        relative(generated, real), absolute(generated, real), rtol=1e-4
    )


def test_equal_sets_have_finite_slope() -> None:
    rows = torch.randn(6, 4, requires_grad=True)
    for options in ({}, {'relative': True}):
        MMDLoss(**options)(rows, rows.detach()).backward()
    assert rows.grad.isfinite().all()


def test_one_repeated_real_row_has_a_scale() -> None:
    generated = torch.randn(4, 3, requires_grad=True)
    MMDLoss([1.0], relative=True)(generated, torch.zeros(5, 3)).backward()
    assert generated.grad.abs().sum() > 0


def test_autocast_changes_nothing() -> None:
    generated, real = torch.randn(5, 8), torch.randn(6, 8)
    expected = MMDLoss()(generated, real)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(MMDLoss()(generated, real), expected)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(bandwidths=[]), 'positive bandwidths'),
        (dict(bandwidths=[1, 0]), 'positive bandwidths'),
        (dict(unbiased=True), 'root=False'),
        (dict(official=True, relative=True), 'official=True'),
    ],
)
def test_options_that_contradict(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MMDLoss(**options)


@pytest.mark.parametrize(
    ('loss', 'shapes'),
    [
        (MMDLoss(), ((3, 4), (3, 5))),
        (MMDLoss(), ((0, 4), (3, 4))),
        (MMDLoss(unbiased=True, root=False), ((1, 4), (3, 4))),
    ],
)
def test_sets_that_cannot_be_compared(
    loss: MMDLoss, shapes: tuple[tuple[int, int], ...]
) -> None:
    with pytest.raises(ValueError, match='compares two sets'):
        loss(*(torch.zeros(shape) for shape in shapes))
