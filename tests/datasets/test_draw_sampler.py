from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zs3_mmseg.datasets.samplers import DrawSampler


def sampler_of(
    size: int, seed: int = 0, rank: int = 0, world: int = 1, shuffle: bool = True
) -> DrawSampler:
    sampler = DrawSampler(range(size), seed=seed, shuffle=shuffle)
    sampler.rank, sampler.world_size = rank, world
    return sampler


def take(sampler: DrawSampler, count: int) -> list[tuple[int, int]]:
    return [(int(draw), draw.draw) for draw in islice(sampler, count)]


sizes = st.integers(1, 9)


@given(sizes, st.integers(0, 100))
def test_every_epoch_is_a_permutation(size: int, seed: int) -> None:
    indices = [index for index, _ in take(sampler_of(size, seed), 3 * size)]
    for epoch in range(3):
        assert sorted(indices[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(sizes, st.integers(1, 4))
def test_ranks_together_make_the_sequence_of_one_process(size: int, world: int) -> None:
    count = 2 * size
    alone = take(sampler_of(size), world * count)
    ranks = [take(sampler_of(size, rank=r, world=world), count) for r in range(world)]
    assert [entry for step in zip(*ranks, strict=True) for entry in step] == alone


@given(sizes, st.integers(1, 3), st.integers(0, 40))
def test_skipping_equals_drawing(size: int, world: int, skipped: int) -> None:
    whole = take(sampler_of(size, rank=world - 1, world=world), skipped + 5)
    resumed = sampler_of(size, rank=world - 1, world=world)
    resumed.skip(skipped)
    assert take(resumed, 5) == whole[skipped:]


def test_skipping_far_costs_nothing() -> None:
    sampler = sampler_of(10)
    sampler.skip(10**12)
    assert take(sampler, 1)[0][1] == 10**12


def test_a_second_look_does_not_shift_the_first() -> None:
    sampler = sampler_of(5)
    assert take(sampler, 3) == take(sampler, 3)


def test_neighbouring_seeds_share_no_epoch() -> None:
    first, second = (
        [index for index, _ in take(sampler_of(50, seed), 150)] for seed in (0, 1)
    )
    orders = [tuple(run[i : i + 50]) for run in (first, second) for i in (0, 50, 100)]
    assert len(set(orders)) == 6


def test_without_shuffling_in_order() -> None:
    indices = [index for index, _ in take(sampler_of(3, shuffle=False), 7)]
    assert indices == [0, 1, 2, 0, 1, 2, 0]


def test_empty_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match='empty'):
        sampler_of(0)


def test_going_back_before_the_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match='>= 0'):
        sampler_of(3).skip(-1)
