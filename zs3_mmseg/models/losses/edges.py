"""A loss where an image looks like an edge."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.utils.labels import IGNORE_INDEX


@MODELS.register_module()
class EdgeAttentionLoss(nn.Module):
    r"""Cross-entropy where an image looks like an edge (SAZS, CVPR 2023).

    With the labelled pixels :math:`P_b` of image :math:`b` whose edge logit exceeds the
    threshold, and the share :math:`f_k` of class :math:`k` among those of all images,

    .. math::
        L = \sum_b \frac{\sum_{x \in P_b} w_{y_x} (-\log p_{y_x})}
        {\sum_{x \in P_b} w_{y_x}}, \qquad
        w_k = \begin{cases} 2 - f_k & f_k > 0 \\ 1 & \text{else} \end{cases}

    The sum over images is that of the released code, so the loss grows with the batch.
    An image without such a pixel adds 0 here; there it makes the whole loss NaN. The
    threshold is a hard test: edge logits get no gradient.

    Args:
        threshold: edge logits above it count; the released code compares logits, not
            probabilities.
        loss_weight: factor on the loss.
    """

    def __init__(self, *, threshold: float = 0.8, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.threshold = threshold
        self.loss_weight = loss_weight

    def forward(
        self,
        logits: Tensor,
        edge_logits: Tensor,
        labels: Tensor,
        ignore_index: int = IGNORE_INDEX,
    ) -> Tensor:
        """Compute the loss.

        Args:
            logits: ``(N, K, h, w)``.
            edge_logits: ``(N, 1, h, w)``.
            labels: ``(N, h, w)``, in ``0..K-1`` or ``ignore_index``.
            ignore_index: the label that is no class.

        Returns:
            a scalar.
        """
        gate = edge_logits.detach().squeeze(1) > self.threshold
        counted = gate & (labels != ignore_index)  # (N, h, w)
        weights = self.class_weights(labels[counted], logits.shape[1])
        target = torch.where(counted, labels, 0)
        pixels = F.cross_entropy(logits.float(), target, reduction='none') * counted
        factors = weights[target] * counted
        sums = (pixels * factors).sum((1, 2))
        totals = factors.sum((1, 2))
        means = sums / torch.where(totals > 0, totals, 1)
        return self.loss_weight * means.sum()

    @staticmethod
    def class_weights(labels: Tensor, num_classes: int) -> Tensor:
        """Return the weights ``(K,)`` of classes in labels ``(M,)`` of any number."""
        counts = torch.bincount(labels, minlength=num_classes).float()
        shares = counts / counts.sum().clamp(min=1)
        return torch.where(counts > 0, 2 - shares, 1.0)
