"""Synthetic label maps hold unseen classes in the promised places only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zs3_mmseg.datasets.splits import make_split
from zs3_mmseg.engine.generative.layouts import SyntheticLayout
from zs3_mmseg.engine.generative.plan import is_unseen

SPLIT = make_split('toy', ['a', 'b', 'c', 'd', 'e'], ['b', 'd'])
seeds = st.integers(0, 9999)


def seen_labels(generator: torch.Generator) -> torch.Tensor:
    values = torch.tensor([0, 2, 4, 255])
    return values[torch.randint(4, (12, 10), generator=generator)]


@given(seed=seeds, kind=st.sampled_from(['seen', 'cells']))
def test_ignored_pixels_and_unchanged_labels_stay(seed: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = seen_labels(generator)
    layout = SyntheticLayout(kind, image_share=1, cell_size=4)
    made = layout(labels, SPLIT, 255, generator)
    assert torch.equal(made == 255, labels == 255)
    unseen = is_unseen(made, SPLIT)
    assert torch.equal(made[~unseen], labels[~unseen])


@given(seed=seeds)
def test_classes_change_as_a_whole(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = seen_labels(generator)
    made = SyntheticLayout('seen', image_share=1)(labels, SPLIT, 255, generator)
    assert is_unseen(made, SPLIT).any()
    for label in (0, 2, 4):
        assert len(made[labels == label].unique()) <= 1


@given(seed=seeds)
def test_cells_change_as_a_whole(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(12, 10, dtype=torch.long)
    layout = SyntheticLayout('cells', image_share=1, cell_size=4)
    made = layout(labels, SPLIT, 255, generator)
    assert is_unseen(made, SPLIT).any()
    for top in range(0, 12, 4):
        for left in range(0, 10, 4):
            assert len(made[top : top + 4, left : left + 4].unique()) == 1


@pytest.mark.parametrize('kind', ['seen', 'cells'])
def test_shares_are_kept(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).mul(2).repeat_interleave(40).view(12, 10)
    layout = SyntheticLayout(kind, image_share=0.3, unseen_share=0.9, cell_size=2)
    made = [layout(labels, SPLIT, 255, generator) for _ in range(400)]
    changed = [result for result in made if result is not labels]
    assert 0.22 < len(changed) / 400 < 0.38
    share = torch.stack([is_unseen(result, SPLIT) for result in changed]).float().mean()
    assert 0.84 < share < 0.96


def test_an_image_without_labels_stays() -> None:
    labels = torch.full((4, 4), 255)
    layout = SyntheticLayout(image_share=1)
    assert layout(labels, SPLIT, 255, torch.Generator()) is labels
