"""The closed form of the schedule, its parts, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zs3_mmseg.engine.schedulers import WarmupPolyLR


def optimizer(*rates: float) -> torch.optim.Optimizer:
    groups = [
        dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=rate) for rate in rates
    ]
    return torch.optim.SGD(groups)


def rates_of(optim: Any, steps: int, *schedulers: Any) -> list[list[float]]:
    rates = []
    for _ in range(steps):
        rates.append([group['lr'] for group in optim.param_groups])
        optim.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


@given(
    length=st.integers(2, 30),
    warmup=st.integers(0, 40),
    ratio=st.floats(0, 1),
    power=st.floats(0.1, 3),
    eta_min=st.floats(0, 0.01),
)
def test_decay_times_warm_up(length, warmup, ratio, power, eta_min) -> None:
    optim = optimizer(0.1, 2.0)
    schedule = WarmupPolyLR(
        optim,
        end=length,
        warmup_steps=warmup,
        warmup_ratio=ratio,
        power=power,
        eta_min=eta_min,
    )
    for step, rates in enumerate(rates_of(optim, length, schedule)):
        ramp = 1.0
        if step < warmup:  # a line from ratio at 0 to 1 at the end of the warm-up
            ramp = ratio + (1 - ratio) * step / warmup
        left = ((length - step) / length) ** power
        expected = [(eta_min + (lr - eta_min) * left) * ramp for lr in (0.1, 2.0)]
        assert rates == pytest.approx(expected, rel=1e-9)


def test_parts_follow_each_other_from_the_initial_rate() -> None:
    optim = optimizer(1.0)
    first = WarmupPolyLR(optim, end=3, total_steps=6, power=1.0)
    second = WarmupPolyLR(optim, begin=3, end=7, power=1.0)
    rates = [lr for (lr,) in rates_of(optim, 8, first, second)]
    expected = [1, 5 / 6, 4 / 6, 1, 3 / 4, 2 / 4, 1 / 4]
    assert rates == pytest.approx([*expected, 1 / 4])


def test_after_its_length_the_rate_stays_at_the_end() -> None:
    optim = optimizer(1.0)
    schedule = WarmupPolyLR(optim, total_steps=3, eta_min=0.25, steps_ahead=1)
    rates = rates_of(optim, 6, schedule)
    assert rates[2:] == [[0.25]] * 4


def test_the_decay_can_move_every_few_steps() -> None:
    optim = optimizer(1.0)
    schedule = WarmupPolyLR(optim, end=6, power=1.0, update_interval=2, warmup_steps=2)
    rates = [lr for (lr,) in rates_of(optim, 6, schedule)]
    assert rates == pytest.approx([0, 1 / 2, 4 / 6, 4 / 6, 2 / 6, 2 / 6])


def test_a_resumed_schedule_goes_on() -> None:
    optim = optimizer(1.0)
    schedule = WarmupPolyLR(optim, end=9, warmup_steps=4)
    expected = rates_of(optim, 9, schedule)[5:]
    before = optimizer(1.0)
    old = WarmupPolyLR(before, end=9, warmup_steps=4)
    rates_of(before, 5, old)
    resumed = optimizer(1.0)
    new = WarmupPolyLR(resumed, end=9, warmup_steps=4)
    resumed.load_state_dict(before.state_dict())
    new.load_state_dict(old.state_dict())
    assert rates_of(resumed, 4, new) == expected


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({}, 'needs end or total_steps'),
        ({'end': 5, 'total_steps': 4}, 'expected at least end - begin = 5'),
        ({'end': 5, 'update_interval': 0}, 'update_interval >= 1'),
        ({'end': 5, 'warmup_steps': -1}, 'warmup_steps >= 0'),
        ({'end': 5, 'warmup_ratio': 1.5}, r'warmup_ratio must be in 0\.\.1'),
    ],
)
def test_lengths_that_make_no_schedule(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        WarmupPolyLR(optimizer(1.0), **options)
