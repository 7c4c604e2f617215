from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zs3_mmseg.models.post_processors import PAMR, MaskMajority
from zs3_mmseg.models.proposers import Proposer


def refined_by_hand(scores: Tensor, image: Tensor, num_iter: int, dilations) -> Tensor:
    """Pixel by pixel, as the formula reads."""
    _, height, width = image.shape

    def at(maps: Tensor, y: int, x: int) -> Tensor:
        return maps[:, min(max(y, 0), height - 1), min(max(x, 0), width - 1)]

    around = [
        (d * y, d * x)
        for d in dilations
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
        if (y, x) != (0, 0)
    ]
    for _ in range(num_iter):
        after = torch.empty_like(scores)
        for y in range(height):
            for x in range(width):
                near = torch.stack([at(image, y + dy, x + dx) for dy, dx in around])
                own = image[:, y, x]
                spread = torch.cat([near, own.expand(len(dilations), 3)]).std(dim=0)
                ratio = (near - own).abs() / (0.1 * spread + 1e-8)
                weights = (-ratio.mean(dim=1)).softmax(dim=0)
                flows = torch.stack([at(scores, y + dy, x + dx) for dy, dx in around])
                after[:, y, x] = (weights[:, None] * flows).sum(dim=0)
        scores = after
    return scores


@pytest.mark.parametrize('dilations', [(1,), (2, 5)])
def test_pamr_is_its_formula(dilations) -> None:
    torch.manual_seed(0)
    scores, image = torch.rand(3, 6, 7), (255 * torch.rand(3, 6, 7)).round()
    kept = scores.clone()
    found = PAMR(num_iter=2, dilations=dilations)(scores, image)
    torch.testing.assert_close(found, refined_by_hand(scores, image, 2, dilations))
    assert torch.equal(scores, kept)


def test_pamr_does_not_cross_an_edge() -> None:
    image = torch.zeros(3, 16, 16)
    image[:, :, 8:] = 200
    scores = torch.zeros(1, 16, 16)
    scores[:, :, 8:] = 1
    torch.testing.assert_close(PAMR(dilations=(1, 2))(scores, image), scores)
    assert PAMR(dilations=(1, 2))(scores, torch.zeros(3, 16, 16))[0, 0, 7] > 0.1


class Given(Proposer):
    """Masks that the test has made."""

    fingerprint = 'given'

    def __init__(self, masks: Tensor) -> None:
        super().__init__(cache=False)
        self.masks = masks

    def propose(self, image: Tensor) -> Tensor:
        return self.masks


def test_masks_take_their_commonest_label_and_small_ones_lie_on_top() -> None:
    labels = torch.tensor([[[1, 1, 1, 4, 4, 0], [1, 2, 3, 4, 3, 0]]])
    whole, corner = torch.zeros(2, 2, 6, dtype=torch.bool)
    whole[:, :5] = True
    corner[:, 3:5] = True
    kept = labels.clone()
    for masks in ([whole, corner], [corner, whole, torch.zeros_like(whole)]):
        found = MaskMajority(Given(torch.stack(masks)))(labels, torch.zeros(3, 2, 6))
        assert found.tolist() == [[[1, 1, 1, 4, 4, 0]] * 2]
    assert torch.equal(labels, kept)


@pytest.mark.parametrize('options', [dict(num_iter=0), dict(dilations=())])
def test_impossible_options_are_refused(options) -> None:
    with pytest.raises(ValueError, match='PAMR needs num_iter >= 1 and dilations >= 1'):
        PAMR(**options)
