"""Draws follow from their keys alone."""

from __future__ import annotations

import pytest
import torch

from zs3_mmseg.engine.generative.plan import WHOLE_IMAGE, KeyedDraws


def test_equal_keys_draw_equal_numbers_whatever_was_drawn_before() -> None:
    one, other = KeyedDraws(7, 3), KeyedDraws(7, 3)
    one.noise(0, 1, 5, 2)
    torch.rand(3)
    assert torch.equal(one.noise(2, 4, 5, 2), other.noise(2, 4, 5, 2))
    assert torch.equal(one.rows(2, 4, 9, 20), other.rows(2, 4, 9, 20))


@pytest.mark.parametrize(
    ('draws', 'image', 'label'),
    [
        (KeyedDraws(8, 3), 2, 4),
        (KeyedDraws(7, 4), 2, 4),
        (KeyedDraws(7, 3), 1, 4),
        (KeyedDraws(7, 3), 2, WHOLE_IMAGE),
        (KeyedDraws(7, 3, rank=1, world_size=2), 2, 4),
    ],
)
def test_other_keys_draw_other_numbers(
    draws: KeyedDraws, image: int, label: int
) -> None:
    noise = KeyedDraws(7, 3).noise(2, 4, 5, 2)
    assert not torch.equal(draws.noise(image, label, 5, 2), noise)


def test_processes_draw_what_one_process_draws() -> None:
    single = KeyedDraws(7, 3)
    second = KeyedDraws(7, 3, rank=1, world_size=2)
    # The second process has every other sample: its sample 1 is the fourth of all.
    assert torch.equal(second.noise(1, 0, 4, 3), single.noise(3, 0, 4, 3))


def test_noise_is_uniform_and_rows_are_drawn_with_replacement() -> None:
    draws = KeyedDraws(0, 0)
    noise = draws.noise(0, 0, 2000, 4)
    assert 0 <= noise.min() < 0.01 < 0.99 < noise.max() < 1
    assert abs(noise.mean() - 0.5) < 0.02
    assert set(draws.rows(0, 0, 3, 200).tolist()) == {0, 1, 2}


def test_dropout_leaves_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    masks = []
    for _ in range(2):
        with KeyedDraws(0, 0).dropout(0, 0):
            masks.append(torch.rand(3))
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(torch.rand(3), expected)
