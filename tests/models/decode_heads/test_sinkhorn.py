"""Transport plans; the golden files say what the published rule computes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zs3_mmseg.models.decode_heads.sinkhorn import PromptTransport, sinkhorn


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3), st.integers(2, 12), st.integers(1, 5), st.integers(0, 2**31 - 1)
)
def test_a_plan_moves_all_there_is_and_no_more(
    batch: int, rows: int, columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(batch, rows, columns, generator=generator)
    plan, rounds = sinkhorn(cost, eps=0.2, max_rounds=1000)
    assert 0 < rounds < 1000
    assert (plan >= 0).all()
    torch.testing.assert_close(
        plan.sum(1), torch.full((batch, columns), 1 / columns), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(
        plan.sum(2), torch.full((batch, rows), 1 / rows), rtol=1e-3, atol=0
    )


def test_problems_that_stop_by_themselves_do_not_know_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(3, 9, 4, generator=generator)
    cost[1] *= 0.01  # done after few rounds
    options = dict(eps=0.05, stop='each')
    alone = [sinkhorn(one[None], **options) for one in cost]
    plans, rounds = sinkhorn(cost, **options)
    assert len({one.rounds for one in alone}) > 1
    assert rounds == max(one.rounds for one in alone)
    assert torch.equal(plans, torch.cat([one.plan for one in alone]))
    together = sinkhorn(cost, eps=0.05)
    assert not torch.equal(together.plan[1], alone[1].plan[0])


@pytest.mark.parametrize(
    ('options', 'what'),
    [
        (dict(eps=0.0), 'must be above 0'),
        (dict(max_rounds=0), 'must be above 0'),
        (dict(stop='all'), 'stop of sinkhorn must be one of'),
    ],
)
def test_options_that_cannot_be(options: dict, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        PromptTransport(**options)
