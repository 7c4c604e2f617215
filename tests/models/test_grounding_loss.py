"""Grounding of words in regions against loops over all of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zs3_mmseg.models.losses import GroundingLoss

REGION_T, T = 0.3, 0.2


def drawn(seed: int, images: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Return regions, words, and which of them captions hold, each some."""
    random = torch.Generator().manual_seed(seed)
    regions = torch.randn(images, 3, 5, generator=random)
    words = torch.randn(6, 5, generator=random)
    said = torch.rand(images, 6, generator=random) < 0.3
    said[torch.arange(images), torch.arange(images) % 6] = True
    return regions, words, said


def alike(regions: Tensor, words: Tensor) -> float:
    """Return how alike one image and the words of one caption are."""
    total = 0.0
    for word in words:
        cosines = [float(r @ word / r.norm() / word.norm()) for r in regions]
        weights = [math.exp(cosine / REGION_T) for cosine in cosines]
        total += sum(w * c for w, c in zip(weights, cosines, strict=True)) / sum(
            weights
        )
    return total / len(words)


def slowly(regions: Tensor, words: Tensor, said: Tensor) -> float:
    pairs = [
        (region, words[own])
        for region, own in zip(regions, said, strict=True)
        if own.any()
    ]
    loss = 0.0
    for image, caption in pairs:
        own = math.exp(alike(image, caption) / T)
        captions = sum(math.exp(alike(image, other) / T) for _, other in pairs)
        images = sum(math.exp(alike(other, caption) / T) for other, _ in pairs)
        loss -= math.log(own / captions) + math.log(own / images)
    return loss / len(pairs)


@pytest.fixture
def loss() -> GroundingLoss:
    return GroundingLoss(region_temperature=REGION_T, temperature=T)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 2))
def test_it_is_the_contrast_of_all_pairs(seed: int, images: int, silent: int) -> None:
    loss = GroundingLoss(region_temperature=REGION_T, temperature=T)
    regions, words, said = drawn(seed, images)
    said[: min(silent, images - 1)] = False  # these take no part
    expected = slowly(regions, words, said)
    assert float(loss(regions, words, said)) == pytest.approx(expected, abs=1e-5)


def test_a_word_pulls_the_region_that_is_closest_to_it(loss: GroundingLoss) -> None:
    words = torch.eye(2)
    said = torch.eye(2, dtype=torch.bool)
    regions = torch.tensor(
        [[[1.0, 0.2], [-1.0, -0.9]], [[0.2, 1.0], [-0.9, -1.0]]], requires_grad=True
    )
    loss(regions, words, said).backward()
    pulled = regions.grad.norm(dim=-1)
    assert (pulled[:, 0] > 10 * pulled[:, 1]).all()
    with torch.no_grad():
        nearer = regions - 0.1 * regions.grad
        assert loss(nearer, words, said) < loss(regions, words, said)


def test_rows_of_zeros_are_no_regions(loss: GroundingLoss) -> None:
    regions, words, said = drawn(1)
    padded = torch.cat([regions, torch.zeros(4, 2, 5)], dim=1).requires_grad_()
    value = loss(padded, words, said)
    torch.testing.assert_close(value, loss(regions, words, said))
    value.backward()
    assert padded.grad.isfinite().all()
    padded.data[0] = 0  # an image without any
    assert loss(padded, words, said).isfinite()


def test_captions_without_words_teach_nothing(loss: GroundingLoss) -> None:
    regions, words, said = drawn(0)
    regions.requires_grad_()
    nothing = loss(regions, words, torch.zeros_like(said))
    nothing.backward()
    assert nothing.item() == 0
    assert not regions.grad.any()


def test_temperatures_are_positive() -> None:
    with pytest.raises(ValueError, match='temperatures > 0'):
        GroundingLoss(temperature=0.0)


def _on_rank(rank: int, folder: Path) -> None:
    dist.init_process_group(
        'gloo', init_method=f'file://{folder / "store"}', rank=rank, world_size=2
    )
    regions, words, said = drawn(3)
    said[3] = False
    own = slice(2 * rank, 2 * rank + 2)
    factor = torch.ones((), requires_grad=True)
    model = GroundingLoss(region_temperature=REGION_T, temperature=T)
    moved = regions[own] + factor * words[0]
    # Processes may have more and fewer regions.
    moved = torch.nn.functional.pad(moved, (0, 0, 0, 2 * rank))
    value = model(moved, words, said[own])
    value.backward()
    grad = factor.grad
    dist.all_reduce(grad)  # as DistributedDataParallel does
    torch.save((value.detach(), grad / 2), folder / f'{rank}.pt')
    dist.destroy_process_group()


def test_two_processes_make_one_batch(loss: GroundingLoss, tmp_path: Path) -> None:
    mp.spawn(_on_rank, (tmp_path,), nprocs=2)
    regions, words, said = drawn(3)
    said[3] = False
    factor = torch.ones((), requires_grad=True)
    value = loss(regions + factor * words[0], words, said)
    value.backward()
    for rank in range(2):
        found, grad = torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        torch.testing.assert_close(found, value.detach())
        torch.testing.assert_close(grad, factor.grad)
