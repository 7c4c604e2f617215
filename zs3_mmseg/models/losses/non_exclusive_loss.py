"""The non-exclusive loss of ZegCLIP: focal and dice over independent class masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.dist import all_reduce
from mmseg.registry import MODELS

from zs3_mmseg.utils.labels import IGNORE_INDEX


def focal_terms(logits: Tensor, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Focal loss of every logit as a negative and as a positive.

    ``a_t (1 - p_t)^gamma BCE`` (arXiv 1708.02002, eq. 5) for target 0 and target 1.

    Args:
        logits: any shape.
        alpha: weight of positives; negatives weigh ``1 - alpha``.
        gamma: focusing exponent.

    Returns:
        two tensors of the shape of ``logits``: for target 0, for target 1.
    """
    probability = logits.sigmoid()
    negative = (1 - alpha) * probability.pow(gamma) * F.softplus(logits)
    positive = alpha * (1 - probability).pow(gamma) * F.softplus(-logits)
    return negative, positive


@MODELS.register_module()
class NonExclusiveLoss(nn.Module):
    """Sum of focal and dice losses over one mask per class (arXiv 2212.03588, eq. 8).

    Every class has its own sigmoid. As in the official code (``SegLossPlus``) a pixel
    that carries no label is a negative of all classes, in both terms, and both terms
    are divided by the number of (image, class) pairs present, averaged over ranks.

    No one-hot map of the labels is made: the terms of all negatives are summed first
    and corrected where a pixel is positive.

    Args:
        mask_weight: weight of the focal term.
        dice_weight: weight of the dice term.
        loss_weight: multiplies both.
        alpha: focal weight of positives.
        gamma: focal exponent.
        ignore_void: leave unlabelled pixels out of both terms, where the official
            code counts them as negatives.
    """

    def __init__(
        self,
        *,
        mask_weight: float = 100.0,
        dice_weight: float = 1.0,
        loss_weight: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        ignore_void: bool = False,
    ) -> None:
        super().__init__()
        self.mask_weight = mask_weight * loss_weight
        self.dice_weight = dice_weight * loss_weight
        self.alpha = alpha
        self.gamma = gamma
        self.ignore_void = ignore_void

    def forward(
        self, mask_logits: Tensor, labels: Tensor, ignore_index: int = IGNORE_INDEX
    ) -> dict[str, Tensor]:
        """Compute both terms.

        Args:
            mask_logits: ``(N, K, h, w)``; resized to the labels bilinearly.
            labels: ``(N, H, W)``, class indices or ``ignore_index``.
            ignore_index: the label that is no class.

        Returns:
            scalars ``loss_mask`` and ``loss_dice``.
        """
        num_classes = mask_logits.shape[1]
        logits = F.interpolate(
            mask_logits.float(),
            size=labels.shape[-2:],
            mode='bilinear',
            align_corners=False,
        ).flatten(2)  # (N, K, HW)
        labels = labels.flatten(1)  # (N, HW)
        labelled = labels != ignore_index
        # Void pixels read class 0 and are masked out of everything positive.
        index = torch.where(labelled, labels, 0).unsqueeze(1)  # (N, 1, HW)
        positive_mask = labelled.unsqueeze(1).to(logits.dtype)

        counts = logits.new_zeros(len(logits), num_classes)
        counts.scatter_add_(1, index[:, 0], positive_mask[:, 0])  # (N, K)
        present = counts > 0
        normaliser = self._normaliser(present)

        own_logits = logits.gather(1, index)  # (N, 1, HW)
        negative, _ = focal_terms(logits, self.alpha, self.gamma)
        own_negative, own_positive = focal_terms(own_logits, self.alpha, self.gamma)
        if self.ignore_void:
            negative = negative * positive_mask
        correction = (own_positive - own_negative) * positive_mask
        pixels = (
            positive_mask.sum(-1).clamp(min=1)
            if self.ignore_void
            else logits.new_tensor(float(labels.shape[1]))
        )
        focal = ((negative.sum(1) + correction[:, 0]).sum(-1, keepdim=True)) / pixels

        probability = logits.sigmoid()
        if self.ignore_void:
            probability = probability * positive_mask
        own_probability = (own_logits.sigmoid() * positive_mask)[:, 0]
        overlap = torch.zeros_like(counts).scatter_add(1, index[:, 0], own_probability)
        dice = 1 - (2 * overlap + 1) / (probability.sum(-1) + counts + 1)

        return {
            'loss_mask': self.mask_weight * focal.sum() / normaliser,
            'loss_dice': self.dice_weight * (dice * present).sum() / normaliser,
        }

    @staticmethod
    def _normaliser(present: Tensor) -> Tensor:
        """Number of (image, class) pairs per rank, averaged over ranks, at least 1."""
        total = present.sum().float()
        all_reduce(total, op='mean')
        return total.clamp(min=1)
