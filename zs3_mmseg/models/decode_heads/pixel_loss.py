"""Cross-entropy and accuracy at label resolution, with few maps at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .running_argmax import RunningArgmax


def pixel_cross_entropy(
    logits: Tensor, labels: Tensor, *, ignore_index: int, align_corners: bool = False
) -> Tensor:
    """Mean softmax cross-entropy over the labelled pixels of a batch.

    Logits are resized to the labels image by image, and resized once more in the
    backward pass instead of being kept: with 156 classes at 512x512, a batch of 16
    would otherwise keep 2.6 GB twice.

    Args:
        logits: ``(N, K, h, w)`` at any resolution.
        labels: ``(N, H, W)`` long, values in ``0..K-1`` or ``ignore_index``.
        ignore_index: label of pixels that don't count.
        align_corners: of the bilinear resize.

    Returns:
        the loss, a scalar, 0 if no pixel is labelled.
    """

    def one_image(image_logits: Tensor, image_labels: Tensor) -> Tensor:
        full = _resized(image_logits, image_labels, align_corners)
        return F.cross_entropy(
            full, image_labels, ignore_index=ignore_index, reduction='sum'
        )

    losses = [
        checkpoint(
            one_image,
            image_logits,
            image_labels,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for image_logits, image_labels in zip(
            logits.float().split(1), labels.split(1), strict=True
        )
    ]
    labelled = (labels != ignore_index).sum().clamp(min=1)
    return torch.stack(losses).sum() / labelled


@torch.no_grad()
def pixel_accuracy(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int,
    align_corners: bool = False,
    class_chunk: int = 32,
) -> Tensor:
    """Share of labelled pixels whose class has the largest logit, in percent.

    Logits are resized to the labels image by image and some classes at a time.

    Args:
        logits: ``(N, K, h, w)`` at any resolution.
        labels: ``(N, H, W)`` long, values in ``0..K-1`` or ``ignore_index``.
        ignore_index: label of pixels that don't count.
        align_corners: of the bilinear resize.
        class_chunk: how many classes are resized at a time.

    Returns:
        a scalar, 0 if no pixel is labelled.
    """
    hits = torch.zeros((), device=logits.device)
    for image, truth in zip(logits.float().split(1), labels.split(1), strict=True):
        running = RunningArgmax()
        for part in image.split(class_chunk, dim=1):
            running.update(_resized(part, truth, align_corners)[0])
        found = running.best()
        assert found is not None  # there is at least one class
        # An ignored label equals no class index, so it counts as no hit.
        hits += (found[1] == truth[0]).sum()
    return 100 * hits / (labels != ignore_index).sum().clamp(min=1)


def _resized(logits: Tensor, labels: Tensor, align_corners: bool) -> Tensor:
    """Bring logits ``(1, K, h, w)`` to the size of labels ``(1, H, W)``."""
    return F.interpolate(
        logits, size=labels.shape[-2:], mode='bilinear', align_corners=align_corners
    )
