"""Cross-entropy and accuracy at label resolution, against maps made in one piece."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from zs3_mmseg.models.decode_heads.zero_shot_head import pixel_accuracy
from zs3_mmseg.models.losses import pixel_cross_entropy


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, 6, generator=generator).requires_grad_()
    labels = torch.randint(0, 5, (3, 11, 9), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    return logits, labels


@pytest.mark.parametrize('class_chunk', [1, 2, 5, 32])
@pytest.mark.parametrize('align_corners', [False, True])
def test_cross_entropy_is_that_of_resized_logits(
    batch, align_corners, class_chunk
) -> None:
    logits, labels = batch
    full = F.interpolate(logits, (11, 9), mode='bilinear', align_corners=align_corners)
    expected = F.cross_entropy(full, labels, ignore_index=255)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    loss = pixel_cross_entropy(
        logits,
        labels,
        ignore_index=255,
        align_corners=align_corners,
        class_chunk=class_chunk,
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize('class_chunk', [1, 2, 5, 32])
@pytest.mark.parametrize('align_corners', [False, True])
def test_accuracy_is_that_of_resized_logits(batch, align_corners, class_chunk) -> None:
    logits, labels = batch
    full = F.interpolate(logits, (11, 9), mode='bilinear', align_corners=align_corners)
    valid = labels != 255
    expected = (full.argmax(dim=1) == labels)[valid].float().mean() * 100
    accuracy = pixel_accuracy(
        logits,
        labels,
        ignore_index=255,
        align_corners=align_corners,
        class_chunk=class_chunk,
    )
    torch.testing.assert_close(accuracy, expected)


@pytest.mark.parametrize('class_chunk', [1, 32])
def test_of_equal_logits_the_first_class_counts(class_chunk) -> None:
    labels = torch.tensor([[[0, 1], [2, 0]]])
    accuracy = pixel_accuracy(
        torch.zeros(1, 3, 1, 1), labels, ignore_index=255, class_chunk=class_chunk
    )
    assert accuracy == 50


def test_a_batch_without_labels_has_no_loss() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    labels = torch.full((1, 4, 4), 255)
    loss = pixel_cross_entropy(logits, labels, ignore_index=255)
    loss.backward()
    assert loss == pixel_accuracy(logits, labels, ignore_index=255) == 0
    assert (logits.grad == 0).all()
