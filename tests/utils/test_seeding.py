import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset

from zs3_mmseg.utils.random_state import Draw, draw_rng


class Spy(BaseDataset):
    """Remembers the indices it is asked for."""

    def __init__(self, length: int) -> None:
        self.length = length
        super().__init__(pipeline=[])

    def load_data_list(self) -> list[dict]:
        return [{'number': number} for number in range(self.length)]

    def __getitem__(self, idx: int) -> int:
        return idx


def numbers() -> tuple:
    return (
        random.random(),
        *np.random.rand(2),  # noqa: NPY002
        *torch.rand(2).tolist(),
    )


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**31))
def test_survives_the_way_to_a_worker(index: int, draw: int, seed: int) -> None:
    sent = pickle.loads(pickle.dumps(Draw(index, draw=draw, seed=seed)))
    assert (int(sent), sent.draw, sent.seed) == (index, draw, seed)


def test_is_kept_through_concat_and_repeat_datasets() -> None:
    nested = RepeatDataset(dataset=Spy(1), times=1)
    nested.dataset = ConcatDataset([Spy(3), Spy(4)])
    nested._ori_len = 7
    got = nested[Draw(7 * 2 + 5, draw=99, seed=1)]
    assert (int(got), got.draw, got.seed) == (2, 99, 1)


def test_arithmetic_that_leaves_the_indices_leaves_the_draw() -> None:
    assert not isinstance(Draw(3, draw=0, seed=0) + 0.5, Draw)


@pytest.mark.parametrize('wrong', [{'draw': -1, 'seed': 0}, {'draw': 0, 'seed': -1}])
def test_negative_numbers_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match='>= 0'):
        Draw(0, **wrong)


def test_same_draw_same_numbers_whatever_was_drawn_before() -> None:
    with draw_rng(Draw(1, draw=2, seed=3)):
        first = numbers()
    numbers()
    with draw_rng(Draw(1, draw=2, seed=3)):
        assert numbers() == first


@pytest.mark.parametrize(
    'other',
    [Draw(2, draw=2, seed=3), Draw(1, draw=3, seed=3), Draw(1, draw=2, seed=4)],
)
def test_every_part_of_a_draw_changes_every_number(other: Draw) -> None:
    with draw_rng(Draw(1, draw=2, seed=3)):
        first = numbers()
    with draw_rng(other):
        assert not set(numbers()) & set(first)


def test_states_outside_are_untouched_even_after_an_error() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    expected = numbers()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)

    def broken_image() -> None:
        with draw_rng(Draw(0, draw=0, seed=0)):
            numbers()
            raise OSError('broken image')

    with pytest.raises(OSError, match='broken image'):
        broken_image()
    assert numbers() == expected


def test_plain_index_changes_nothing() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with draw_rng(0):
        assert torch.equal(torch.rand(1), expected)


class Noise(Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> torch.Tensor:
        with draw_rng(index):
            return torch.rand(1)


def test_values_do_not_depend_on_the_number_of_workers() -> None:
    draws = [Draw(i % 10, draw=i, seed=0) for i in range(12)]
    alone, helped = (
        torch.cat(list(DataLoader(Noise(), 3, sampler=draws, num_workers=workers)))
        for workers in (0, 2)
    )
    assert torch.equal(alone, helped)
