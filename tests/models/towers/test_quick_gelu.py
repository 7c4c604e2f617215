"""The activation that keeps less, against open_clip's."""

from __future__ import annotations

import pytest
import torch
from open_clip.transformer import QuickGELU

from zs3_mmseg.models.towers import load_clip
from zs3_mmseg.models.towers.architectures import LeanQuickGELU


def test_it_is_open_clips(tiny_config) -> None:
    torch.manual_seed(0)
    towers = load_clip(tiny_config(quick_gelu=True)).model
    assert not any(isinstance(part, QuickGELU) for part in towers.modules())
    lean = [part for part in towers.modules() if isinstance(part, LeanQuickGELU)]
    assert len(lean) == 4  # three blocks of one tower, one of the other
    x = torch.linspace(-9, 9, 201, requires_grad=True)
    upstream = torch.randn(201)
    results = []
    for activation in (lean[0], QuickGELU()):
        y = activation(x)
        (slope,) = torch.autograd.grad(y, x, upstream)
        results.append((y.detach(), slope))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])
    with torch.no_grad():
        assert torch.equal(lean[0](x), results[1][0])


def test_its_gradients_are_those_of_differences() -> None:
    x = torch.randn(7, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(LeanQuickGELU(), x)
    assert torch.autograd.gradgradcheck(LeanQuickGELU(), x)


@pytest.mark.parametrize('kind', [LeanQuickGELU, QuickGELU])
def test_what_is_kept_for_the_backward_pass(kind: type) -> None:
    kept: set[int] = set()
    x = torch.randn(1000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.add(tensor.data_ptr()), lambda _: None
    ):
        kind()(x)
    assert len(kept) == (1 if kind is LeanQuickGELU else 2)
