"""Losses of zero-shot segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmengine.dist import all_reduce
from mmseg.registry import MODELS

from zs3_mmseg.utils.labels import IGNORE_INDEX

__all__ = ['MMDLoss', 'NonExclusiveLoss']


#: Variances of the official code of ZS3Net; its paper names 60 in place of 80.
ZS3_BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)


@MODELS.register_module()
class MMDLoss(nn.Module):
    """Maximum mean discrepancy, sum of Gaussian kernels (arXiv 1906.00817, eq. 1).

    With ``k(x, y) = sum_v exp(-|x - y|^2 / (2 v))`` over all bandwidths ``v``::

        MMD^2 = mean k(G, G) + mean k(R, R) - 2 mean k(G, R)

    ``v`` is a variance throughout, as the official code uses its list. Always computed
    in float32, with squared distances of centred rows, which cannot become negative.

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
        least = 2 if self.unbiased else 1
        if generated.shape[1:] != real.shape[1:] or min(len(generated), len(real)) < (
            least
        ):
            raise ValueError(
                f'MMDLoss compares two sets of {least} or more rows of one length, got '
                f'{tuple(generated.shape)} and {tuple(real.shape)}'
            )
        with torch.autocast(generated.device.type, enabled=False):
            generated, real = generated.float(), real.detach().float()
            if self.official:
                return self._official(generated, real)
            return self._stable(generated, real)

    def _stable(self, generated: Tensor, real: Tensor) -> Tensor:
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


def focal_terms(logits: Tensor, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Focal loss of every logit as a negative and as a positive.

    ``a_t (1 - p_t)^gamma BCE`` (arXiv 1708.02002, eq. 5) for target 0 and target 1.
    """
    probability = logits.sigmoid()
    negative = (1 - alpha) * probability.pow(gamma) * F.softplus(logits)
    positive = alpha * (1 - probability).pow(gamma) * F.softplus(-logits)
    return negative, positive


@MODELS.register_module()
class NonExclusiveLoss(nn.Module):
    """Sum of focal and dice losses over one mask per class (arXiv 2212.03588, eq. 8).

    Each class ``k`` has a sigmoid ``s_kp`` of its own at each of the ``P`` pixels, and
    a target ``y_kp``, 1 where pixel ``p`` is labelled ``k`` and else 0. Of an image::

        focal_k = 1/P sum_p (   y_kp    alpha    (1 - s_kp)^gamma  -log(s_kp)
                           + (1 - y_kp) (1 - alpha)    s_kp^gamma  -log(1 - s_kp) )
        dice_k  = 1 - (2 sum_p s_kp y_kp + 1) / (sum_p s_kp + sum_p y_kp + 1)

    (arXiv 1708.02002, eq. 5, and 1606.04797, section 3, without squares), and of the
    images and classes of a batch, with ``n`` the number of pairs of an image and a
    class that is present in it, at least 1 and averaged over ranks::

        loss_mask = mask_weight / n  sum_images sum_k          focal_k
        loss_dice = dice_weight / n  sum_images sum_k present  dice_k

    As in the official code (``SegLossPlus``) a pixel that carries no label is a
    negative of all classes, in both terms.

    No one-hot map of the labels is made: sums are first taken as if all pixels were
    negatives, and each pixel then corrects the one class that it is a positive of, with
    the logit gathered by its label. Nor are there maps of all classes at label
    resolution if there are many: masks are resized ``class_chunk`` at a time, and once
    more in the backward pass instead of being kept.

    Args:
        mask_weight: weight of the focal term.
        dice_weight: weight of the dice term.
        loss_weight: multiplies both.
        alpha: focal weight of positives.
        gamma: focal exponent.
        ignore_void: leave unlabelled pixels out of both terms, where the official
            code counts them as negatives.
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
            options: dict[str, Any] = dict(first=first, align_corners=align_corners)
            if num_classes <= self.class_chunk:
                terms = self._terms(*chunk, **options)
            else:
                terms = checkpoint(
                    self._terms,
                    *chunk,
                    use_reentrant=False,
                    preserve_rng_state=False,
                    **options,
                )
            focal.append(terms[0])
            dice.append(terms[1])
        normaliser = self._normaliser(counts)
        return {
            'loss_mask': self.mask_weight * torch.stack(focal).sum() / normaliser,
            'loss_dice': self.dice_weight * torch.stack(dice).sum() / normaliser,
        }

    def _terms(
        self,
        mask_logits: Tensor,
        counts: Tensor,
        labels: Tensor,
        labelled: Tensor,
        *,
        first: int,
        align_corners: bool,
    ) -> tuple[Tensor, Tensor]:
        """Sum both terms over images and some of the classes.

        Args:
            mask_logits: ``(N, k, h, w)``.
            counts: ``(N, k)``, how many such pixels the image has.
            labels: ``(N, H, W)``, of all classes.
            labelled: ``(N, H, W)``, whether the pixel is of any class.
        """
        num_classes = mask_logits.shape[1]
        labels = labels - first
        logits = F.interpolate(
            mask_logits,
            size=labels.shape[-2:],
            mode='bilinear',
            align_corners=align_corners,
        ).flatten(2)  # (N, k, HW)
        own = labelled & (labels >= 0) & (labels < num_classes)
        # Other pixels read class 0 and are masked out of everything positive.
        index = torch.where(own, labels, 0).flatten(1)  # (N, HW)
        positive_mask = own.flatten(1).to(logits.dtype)  # (N, HW)
        counted = labelled.flatten(1).to(logits.dtype)

        own_logits = logits.gather(1, index.unsqueeze(1))  # (N, 1, HW)
        negative, _ = focal_terms(logits, self.alpha, self.gamma)
        own_negative, own_positive = focal_terms(own_logits, self.alpha, self.gamma)
        correction = (own_positive - own_negative)[:, 0] * positive_mask
        if self.ignore_void:
            negative = negative * counted.unsqueeze(1)
            pixels = counted.sum(-1).clamp(min=1)  # (N,)
        else:
            pixels = logits.new_tensor(float(logits.shape[2]))
        focal = (negative.sum(1) + correction).sum(-1) / pixels

        probability = logits.sigmoid()
        if self.ignore_void:
            probability = probability * counted.unsqueeze(1)
        own_probability = own_logits.sigmoid()[:, 0] * positive_mask
        overlap = torch.zeros_like(counts).scatter_add(1, index, own_probability)
        dice = 1 - (2 * overlap + 1) / (probability.sum(-1) + counts + 1)
        return focal.sum(), (dice * (counts > 0)).sum()

    @staticmethod
    def _normaliser(counts: Tensor) -> Tensor:
        """Number of (image, class) pairs per rank, averaged over ranks, at least 1."""
        total = (counts > 0).sum().float()
        all_reduce(total, op='mean')
        return total.clamp(min=1)


def _pixels_of_class(labels: Tensor, counted: Tensor, num_classes: int) -> Tensor:
    """Count the pixels ``counted`` of each class, ``(N, H, W)`` -> ``(N, K)``."""
    index = torch.where(counted, labels, 0).flatten(1)
    counts = torch.zeros(len(labels), num_classes, device=labels.device)
    return counts.scatter_add_(1, index, counted.flatten(1).float())
