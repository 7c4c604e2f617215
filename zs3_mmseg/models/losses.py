"""Losses of zero-shot segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmengine.dist import all_reduce
from mmseg.registry import MODELS

from zs3_mmseg.utils.labels import IGNORE_INDEX

__all__ = ['EdgeAttentionLoss', 'MMDLoss', 'NonExclusiveLoss']

#: Variances of the official code of ZS3Net; its paper names 60 in place of 80.
ZS3_BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)


@MODELS.register_module()
class MMDLoss(nn.Module):
    """Maximum mean discrepancy, sum of Gaussian kernels (arXiv 1906.00817, eq. 1).

    With ``k(x, y) = sum_v exp(-|x - y|^2 / (2 v))`` over all bandwidths ``v``::

        MMD^2 = mean k(G, G) + mean k(R, R) - 2 mean k(G, R)

    over rows ``G`` (generated) and ``R`` (real); the loss is its root. ``v`` is a
    variance throughout, as the official code uses its list. Always computed in float32,
    with squared distances of centred rows, which cannot become negative.

    Args:
        bandwidths: the variances ``v``.
        relative: multiply the bandwidths by the mean squared distance between
            different real rows, so that they fit features of any scale.
        root: return the square root of the sum, as the official code does; the paper
            has the sum itself.
        unbiased: leave each row's kernel with itself out of the means (Gretton et al.
            2012, eq. 3). The estimate may then be negative, so there is no root.
        eps: least value under the root, where its slope is infinite otherwise.
        official: compute as the official code does: no clamp, so that equal sets may
            give NaN; weights of the two sets that are wrong when they differ in size.

    Raises:
        ValueError: if a bandwidth is not positive, or options contradict each other.
    """

    def __init__(
        self,
        bandwidths: Sequence[float] = ZS3_BANDWIDTHS,
        *,
        relative: bool = False,
        root: bool = True,
        unbiased: bool = False,
        eps: float = 1e-12,
        official: bool = False,
    ) -> None:
        super().__init__()
        if not bandwidths or min(bandwidths) <= 0:
            raise ValueError(f'MMDLoss needs positive bandwidths, got {bandwidths}')
        if unbiased and root:
            raise ValueError(
                'MMDLoss: an unbiased estimate may be negative; set root=False with '
                'unbiased=True'
            )
        if official and (relative or unbiased or not root):
            raise ValueError(
                'MMDLoss: official=True takes the root of the biased estimate with '
                'absolute bandwidths; drop it to use other options'
            )
        self.bandwidths = tuple(bandwidths)
        self.relative = relative
        self.root = root
        self.unbiased = unbiased
        self.eps = eps
        self.official = official

    def forward(self, generated: Tensor, real: Tensor) -> Tensor:
        """Compare two sets.

        Args:
            generated: ``(M, F)`` rows.
            real: ``(N, F)`` rows, taken as constants.

        Returns:
            a scalar, float32.

        Raises:
            ValueError: if the sets have rows of different length, or too few rows:
                none, or one where ``unbiased`` needs pairs.
        """
        least, fewest = 2 if self.unbiased else 1, min(len(generated), len(real))
        if generated.shape[1:] != real.shape[1:] or fewest < least:
            raise ValueError(
                f'MMDLoss compares two sets of {least} or more rows of one length, got '
                f'{tuple(generated.shape)} and {tuple(real.shape)}'
            )
        with torch.autocast(generated.device.type, enabled=False):
            generated, real = generated.float(), real.detach().float()
            if self.official:
                return self._official(generated, real)
            return self._centred(generated, real)

    def _centred(self, generated: Tensor, real: Tensor) -> Tensor:
        # The distances stay the same, their rounding errors do not.
        centre = real.mean(dim=0)
        generated, real = generated - centre, real - centre
        within_real = squared_distances(real, real)
        scale = torch.ones((), device=real.device)
        if self.relative:
            pairs = max(len(real) * (len(real) - 1), 1)
            spread = within_real.sum() / pairs
            # One and the same row, drawn again and again, has no scale of its own.
            scale = torch.where(spread > self.eps, spread, scale)
        value = (
            self._mean(squared_distances(generated, generated), scale, self.unbiased)
            + self._mean(within_real, scale, self.unbiased)
            - 2 * self._mean(squared_distances(generated, real), scale)
        )
        return value.clamp_min(self.eps).sqrt() if self.root else value

    def _mean(
        self, distances: Tensor, scale: Tensor, without_diagonal: bool = False
    ) -> Tensor:
        kernel = torch.zeros_like(distances)
        for bandwidth in self.bandwidths:
            kernel = kernel + torch.exp(distances / (-2 * bandwidth * scale))
        if not without_diagonal:
            return kernel.mean()
        count = len(kernel)
        return (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))

    def _official(self, generated: Tensor, real: Tensor) -> Tensor:
        """``sqrt(sum_v sum_ij w_i w_j exp((x_i x_j - x_i^2 / 2 - x_j^2 / 2) / v))``."""
        rows = torch.cat([generated, real])  # (M + N, F)
        products = rows @ rows.T
        halves = 0.5 * products.diagonal()[:, None]
        exponents = products - halves - halves.T
        # The first N rows weigh 1/N and the rest -1/M, whatever the sets' sizes are.
        weights = torch.cat(
            [
                rows.new_full((len(real), 1), 1 / len(real)),
                rows.new_full((len(generated), 1), -1 / len(generated)),
            ]
        )
        pairs = weights @ weights.T
        sums = [
            (pairs * torch.exp(exponents / bandwidth)).sum()
            for bandwidth in self.bandwidths
        ]
        return torch.stack(sums).sum().sqrt()


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """Squared distances between rows ``(M, F)`` and ``(N, F)``: ``(M, N)``, >= 0."""
    norms = one.square().sum(dim=1)[:, None] + other.square().sum(dim=1)
    return (norms - 2 * one @ other.T).clamp_min(0)


@MODELS.register_module()
class NonExclusiveLoss(nn.Module):
    r"""Focal and dice loss of one mask per class (ZegCLIP, arXiv 2212.03588, eq. 8).

    Every class :math:`k` has its own sigmoid :math:`p_{bkx} = \sigma(m_{bkx})` at pixel
    :math:`x` of image :math:`b`, with mask logits :math:`m` resized to the labels. Its
    target :math:`t_{bkx}` is 1 where the label is :math:`k` and 0 everywhere else: a
    pixel without a label is a negative of all classes. With :math:`X` pixels per image
    and :math:`N` pairs :math:`(b, k)` of an image and a class that is in its labels
    (averaged over ranks, at least 1)

    .. math::
        L_{mask} &= \frac{w_{mask}}{N} \sum_{b,k} \frac{1}{X} \sum_x
        a\, (1 - q)^\gamma\, (-\log q) \\
        L_{dice} &= \frac{w_{dice}}{N} \sum_{(b,k)\ present} \Big( 1 -
        \frac{2 \sum_x p\, t + 1}{\sum_x p + \sum_x t + 1} \Big)

    where :math:`q = p` and :math:`a = \alpha` for positives (:math:`t = 1`),
    :math:`q = 1 - p` and :math:`a = 1 - \alpha` for negatives. The focal term is eq. 5
    of arXiv 1708.02002, the dice term that of arXiv 1606.04797 without squares below
    and with 1 added on both sides; both as ``SegLossPlus`` of the official code has it.

    **Without one-hot targets.** A pixel is a positive of one class at most. So the
    focal term of all classes is that of negatives only, plus, at labelled pixels, the
    difference that the pixel's own class makes::

        sum_k focal(m_k, t_k) = sum_k negative(m_k) + [positive(m_y) - negative(m_y)]

    In the dice term ``sum p t`` adds up each pixel's own probability by class, and
    ``sum t`` counts labels. Masks are resized ``class_chunk`` classes at a time, and
    once more in the backward pass instead of being kept.

    Args:
        mask_weight: :math:`w_{mask}`.
        dice_weight: :math:`w_{dice}`.
        loss_weight: multiplies both.
        alpha: focal weight of positives, in 0..1.
        gamma: focal exponent, >= 0.
        ignore_void: leave unlabelled pixels out of all sums over :math:`x` (and out of
            :math:`X`), where the official code counts them as negatives.
        class_chunk: how many classes are handled at label resolution at a time. Up to
            this many are handled at once and nothing is computed twice.

    Raises:
        ValueError: if ``class_chunk`` is less than 1.
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
        class_chunk: int = 32,
    ) -> None:
        super().__init__()
        if class_chunk < 1:
            raise ValueError(f'class_chunk must be at least 1, not {class_chunk}')
        self.mask_weight = mask_weight * loss_weight
        self.dice_weight = dice_weight * loss_weight
        self.alpha = alpha
        self.gamma = gamma
        self.ignore_void = ignore_void
        self.class_chunk = class_chunk

    def forward(
        self,
        mask_logits: Tensor,
        labels: Tensor,
        ignore_index: int = IGNORE_INDEX,
        align_corners: bool = False,
    ) -> dict[str, Tensor]:
        """Compute both terms.

        Args:
            mask_logits: ``(N, K, h, w)``; resized to the labels bilinearly.
            labels: ``(N, H, W)``, class indices or ``ignore_index``.
            ignore_index: the label that is no class.
            align_corners: of the resize; the official code has False.

        Returns:
            scalars ``loss_mask`` and ``loss_dice``.
        """
        mask_logits = mask_logits.float()
        num_classes = mask_logits.shape[1]
        labelled = labels != ignore_index  # (N, H, W)
        counts = _pixels_of_class(labels, labelled, num_classes)  # (N, K)
        focal, dice = [], []
        for first in range(0, num_classes, self.class_chunk):
            part = slice(first, first + self.class_chunk)
            chunk = mask_logits[:, part], counts[:, part], labels, labelled
            if num_classes <= self.class_chunk:
                terms = self._terms(*chunk, first, align_corners)
            else:
                terms = checkpoint(
                    self._terms,
                    *chunk,
                    first,
                    align_corners,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            focal.append(terms[0])
            dice.append(terms[1])
        present = (counts > 0).sum().float()
        all_reduce(present, op='mean')
        present = present.clamp(min=1)
        return {
            'loss_mask': self.mask_weight * torch.stack(focal).sum() / present,
            'loss_dice': self.dice_weight * torch.stack(dice).sum() / present,
        }

    def _terms(
        self,
        mask_logits: Tensor,
        counts: Tensor,
        labels: Tensor,
        labelled: Tensor,
        first: int,
        align_corners: bool,
    ) -> tuple[Tensor, Tensor]:
        """Sum focal and dice terms over images and ``k`` classes from ``first`` on.

        ``mask_logits`` ``(N, k, h, w)`` and ``counts`` ``(N, k)`` are of these classes,
        ``labels`` ``(N, H, W)`` of all; ``labelled`` says which of them mean a class.
        """
        labels = labels - first
        logits = F.interpolate(
            mask_logits,
            size=labels.shape[-2:],
            mode='bilinear',
            align_corners=align_corners,
        ).flatten(2)  # (N, k, HW)
        own = labelled & (labels >= 0) & (labels < mask_logits.shape[1])
        # Pixels of no class here read the first and are masked out of what it gives.
        label = torch.where(own, labels, 0).flatten(1)  # (N, HW)
        positive = own.flatten(1).to(logits.dtype)  # (N, HW)
        own_logits = logits.gather(1, label.unsqueeze(1))  # (N, 1, HW)
        counted = None
        if self.ignore_void:
            counted = labelled.flatten(1).to(logits.dtype)  # (N, HW)
        focal = self._focal(logits, own_logits, positive, counted)
        dice = self._dice(logits, own_logits, label, positive, counted, counts)
        return focal.sum(), (dice * (counts > 0)).sum()

    def _focal(
        self,
        logits: Tensor,
        own_logits: Tensor,
        positive: Tensor,
        counted: Tensor | None,
    ) -> Tensor:
        """Return the focal term of each image, summed over classes: ``(N,)``."""
        negatives = self._as_negative(logits, logits.sigmoid())
        own_probability = own_logits.sigmoid()
        own_negative = self._as_negative(own_logits, own_probability)
        difference = self._as_positive(own_logits, own_probability) - own_negative
        pixels = logits.new_tensor(float(logits.shape[2]))
        if counted is not None:
            negatives = negatives * counted.unsqueeze(1)
            pixels = counted.sum(-1).clamp(min=1)  # (N,)
        per_pixel = negatives.sum(1) + difference[:, 0] * positive
        return per_pixel.sum(-1) / pixels

    def _as_negative(self, logits: Tensor, p: Tensor) -> Tensor:
        """``(1 - alpha) p^gamma (-log(1 - p))``."""
        return (1 - self.alpha) * p.pow(self.gamma) * F.softplus(logits)

    def _as_positive(self, logits: Tensor, p: Tensor) -> Tensor:
        """``alpha (1 - p)^gamma (-log p)``."""
        return self.alpha * (1 - p).pow(self.gamma) * F.softplus(-logits)

    @staticmethod
    def _dice(
        logits: Tensor,
        own_logits: Tensor,
        label: Tensor,
        positive: Tensor,
        counted: Tensor | None,
        counts: Tensor,
    ) -> Tensor:
        """Return the dice term of each image and class, present or not: ``(N, k)``."""
        probability = logits.sigmoid()
        if counted is not None:
            probability = probability * counted.unsqueeze(1)
        own_probability = own_logits.sigmoid()[:, 0] * positive
        overlap = torch.zeros_like(counts).scatter_add(1, label, own_probability)
        return 1 - (2 * overlap + 1) / (probability.sum(-1) + counts + 1)


def _pixels_of_class(labels: Tensor, labelled: Tensor, num_classes: int) -> Tensor:
    """Count the labelled pixels of each class and image: ``(N, K)`` float32."""
    index = torch.where(labelled, labels, 0).flatten(1)
    counts = torch.zeros(len(labels), num_classes, device=labels.device)
    return counts.scatter_add_(1, index, labelled.flatten(1).float())


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
