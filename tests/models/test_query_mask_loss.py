"""Matching and losses of query masks against brute force and closed forms."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zs3_mmseg.models.losses import (
    MaskClassificationLoss,
    MaskTargets,
    best_dice_loss,
)
from zs3_mmseg.utils.labels import IGNORE_INDEX


def drawn(seed: int, num_queries: int, num_targets: int) -> tuple:
    torch.manual_seed(seed)
    logits = torch.randn(num_queries, num_targets + 1)
    masks = 3 * torch.randn(num_queries, 4, 5)
    target = MaskTargets(
        torch.arange(num_targets),
        torch.rand(num_targets, 8, 10) < 0.4,
        torch.zeros(8, 10, dtype=torch.bool),
    )
    return logits, masks, target


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 5))
def test_matching_is_the_cheapest_of_all(seed: int, queries: int, targets: int) -> None:
    loss = MaskClassificationLoss()
    given_parts = drawn(seed, queries, targets)
    cost = loss.cost(*given_parts)
    found, own = loss.match(*given_parts)
    assert len(found) == len(own) == min(queries, targets)
    assert len(set(found.tolist())) == len(set(own.tolist())) == len(found)
    many, few = max(queries, targets), min(queries, targets)
    table = cost if queries >= targets else cost.T
    cheapest = min(
        sum(float(table[place, index]) for index, place in enumerate(places))
        for places in permutations(range(many), few)
    )
    assert float(cost[found, own].sum()) == pytest.approx(cheapest, abs=1e-4)


def test_a_mask_that_fits_costs_less() -> None:
    logits, masks, target = drawn(0, 3, 1)
    logits[:] = 0
    masks[1] = torch.where(target.masks[0, ::2, ::2], 9.0, -9.0)
    assert MaskClassificationLoss().match(logits, masks, target)[0].tolist() == [1]


def test_targets_are_the_labels_of_a_map() -> None:
    labels = torch.tensor([[3, 3, IGNORE_INDEX], [0, 3, 0]])
    target = MaskTargets.of(labels, IGNORE_INDEX)
    assert target.labels.tolist() == [0, 3]
    assert torch.equal(target.masks[1], labels == 3)
    assert torch.equal(target.ignored, labels == IGNORE_INDEX)


def losses_of(loss: MaskClassificationLoss, labels: Tensor) -> dict[str, Tensor]:
    """Two queries, the first on the left half, the second on the right."""
    masks = torch.full((1, 1, 2, 4, 4), -9.0)
    masks[..., 0, :, :2] = masks[..., 1, :, 2:] = 9
    logits = torch.tensor([[3.0, 0.0], [3.0, 0.0]])[None, None]
    targets = [MaskTargets.of(labels, IGNORE_INDEX)]
    return loss(logits.requires_grad_(), masks.requires_grad_(), targets)


def test_queries_on_ignored_pixels_may_be_spared() -> None:
    labels = torch.zeros(4, 4, dtype=torch.long)
    labels[:, 2:] = IGNORE_INDEX
    object_loss, none_loss = torch.tensor([3.0, 0.0]).log_softmax(dim=0).neg().tolist()
    published = losses_of(MaskClassificationLoss(no_object_weight=0.1), labels)
    mean = (object_loss + 0.1 * none_loss) / 1.1
    assert float(published['loss_ce'].detach()) == pytest.approx(mean)
    spared = losses_of(MaskClassificationLoss(ignored_share=0.5), labels)
    assert float(spared['loss_ce'].detach()) == pytest.approx(object_loss)
    # Half of a mask is not more than half of it.
    labels[:, 2] = 0
    counted = losses_of(MaskClassificationLoss(ignored_share=0.5), labels)
    assert float(counted['loss_ce'].detach()) == pytest.approx(mean)


@pytest.mark.parametrize('share', [None, 0.5])
def test_an_image_without_any_label_trains(share: float | None) -> None:
    labels = torch.full((4, 4), IGNORE_INDEX)
    losses = losses_of(MaskClassificationLoss(ignored_share=share), labels)
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    assert losses['loss_mask'] == losses['loss_dice'] == 0
    assert (losses['loss_ce'] == 0) == (share is not None)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(mask_weight=-1.0), 'weights >= 0'),
        (dict(no_object_weight=0.0), 'no_object_weight > 0'),
        (dict(ignored_share=1.0), 'ignored_share must be in 0..1'),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskClassificationLoss(**options)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 4))
def test_masks_without_classes_learn_from_their_targets(
    seed: int, queries: int, targets: int
) -> None:
    _, masks, target = drawn(seed, queries, targets)
    _, none, blank = drawn(seed, queries, 0)
    # At one size, the closest mask is the one with the least loss.
    target = MaskTargets(
        target.labels, target.masks[:, ::2, ::2], target.ignored[::2, ::2]
    )
    expected = 0.0
    for truth in target.masks:
        expected += min(
            1
            - (2 * float(share[truth].sum()) + 1)
            / (float(share.sum()) + int(truth.sum()) + 1)
            for share in masks.sigmoid()
        )
    masks.requires_grad_()
    loss = best_dice_loss(torch.stack([masks, none]), [target, blank])
    assert float(loss) == pytest.approx(expected / max(targets, 1), abs=1e-5)
    loss.backward()
    learning = masks.grad.flatten(1).any(dim=1).sum()
    assert min(targets, 1) <= learning <= targets
