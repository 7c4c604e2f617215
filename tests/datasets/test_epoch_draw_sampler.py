from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from zs3_mmseg.datasets.samplers import DrawSampler, EpochDrawSampler


def epoch_of(size: int, epoch: int, rank: int = 0, world: int = 1) -> list:
    sampler = EpochDrawSampler(range(size), seed=3)
    sampler.rank, sampler.world_size = rank, world
    sampler.set_epoch(epoch)
    assert len(sampler) == len(list(sampler))
    return list(sampler)


@given(st.integers(1, 9))
def test_epochs_of_one_process_are_the_endless_sequence(size: int) -> None:
    endless = DrawSampler(range(size), seed=3)
    endless.rank, endless.world_size = 0, 1
    epochs = [draw for epoch in range(3) for draw in epoch_of(size, epoch)]
    expected = list(islice(endless, 3 * size))
    assert [(int(d), d.draw) for d in epochs] == [(int(d), d.draw) for d in expected]


@given(st.integers(1, 9), st.integers(1, 4))
def test_ranks_share_an_epoch_in_equal_numbers(size: int, world: int) -> None:
    parts = [epoch_of(size, 2, rank, world) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    draws = [draw for part in parts for draw in part]
    assert {int(draw) for draw in draws} == set(range(size))
    assert len({draw.draw for draw in draws}) == len(draws) < size + world
