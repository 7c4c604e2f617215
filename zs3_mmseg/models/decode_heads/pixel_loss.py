"""Cross-entropy at label resolution that holds one image's logits at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def pixel_cross_entropy(
    logits: Tensor, labels: Tensor, *, ignore_index: int, align_corners: bool = False
) -> tuple[Tensor, Tensor]:
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
        the loss, 0 if no pixel is labelled, and the share of labelled pixels whose
        class has the largest logit, in percent; two scalars.
    """

    def one_image(image_logits: Tensor, image_labels: Tensor) -> tuple[Tensor, Tensor]:
        full = F.interpolate(
            image_logits,
            size=image_labels.shape[-2:],
            mode='bilinear',
            align_corners=align_corners,
        )
        loss = F.cross_entropy(
            full, image_labels, ignore_index=ignore_index, reduction='sum'
        )
        # An ignored label equals no class index, so it counts as no hit.
        return loss, (full.detach().argmax(dim=1) == image_labels).sum()

    losses, hits = [], []
    for image_logits, image_labels in zip(
        logits.float().split(1), labels.split(1), strict=True
    ):
        loss, hit = checkpoint(
            one_image,
            image_logits,
            image_labels,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        losses.append(loss)
        hits.append(hit)
    labelled = (labels != ignore_index).sum().clamp(min=1)
    accuracy = torch.stack(hits).sum() * (100.0 / labelled)
    return torch.stack(losses).sum() / labelled, accuracy
