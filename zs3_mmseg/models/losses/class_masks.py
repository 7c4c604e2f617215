"""Losses over one mask per class, and over a map of unseen pixels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmengine.dist import all_reduce
from mmseg.registry import MODELS

from zs3_mmseg.models.precision import at_least_float32
from zs3_mmseg.models.resize import resize_by_products, resize_maps
from zs3_mmseg.utils.labels import IGNORE_INDEX

from .divisors import Divisor
from .pixels import CLASS_CHUNK, ResizedMaps, refuse_second_derivatives


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

    SPT-SEG (arXiv 2312.12754) has another term in place of dice, the structural
    similarity of the logits as they are with the targets, over windows of 11x11 pixels
    with Gaussian weights (deviation 1.5, zeros around the maps),

    .. math::
        L_{ssim} = w_{ssim} \Big( 1 - \text{mean}_{bkx} \frac{(2 \mu_m \mu_t + c_1)
        (2 \sigma_{mt} + c_2)}{(\mu_m^2 + \mu_t^2 + c_1)
        (\sigma_m^2 + \sigma_t^2 + c_2)} \Big), \quad c_1 = 0.01^2, c_2 = 0.03^2.

    **Without one-hot targets.** A pixel is a positive of one class at most. So the
    focal term of all classes is that of negatives only, plus, at labelled pixels, the
    difference that the pixel's own class makes::

        sum_k focal(m_k, t_k) = sum_k negative(m_k) + [positive(m_y) - negative(m_y)]

    In the dice term ``sum p t`` adds up each pixel's own probability by class, and
    ``sum t`` counts labels. Masks are resized ``class_chunk`` classes at a time, and
    their gradients are made with them, in closed form, so that nothing at label
    resolution is kept or made again; a second derivative is refused.

    Args:
        mask_weight: :math:`w_{mask}`.
        dice_weight: :math:`w_{dice}`.
        ssim_weight: :math:`w_{ssim}`; 0: the term is not computed. One-hot targets are
            made for it, a class chunk at a time.
        loss_weight: multiplies all.
        alpha: focal weight of positives, in 0..1.
        gamma: focal exponent, >= 0.
        ignore_void: leave unlabelled pixels out of all sums over :math:`x` (and out of
            :math:`X`), where the official code counts them as negatives.
        class_chunk: how many classes of an image are handled at label resolution at a
            time.

    Raises:
        ValueError: if ``class_chunk`` is less than 1.
    """

    def __init__(
        self,
        *,
        mask_weight: float = 100.0,
        dice_weight: float = 1.0,
        ssim_weight: float = 0.0,
        loss_weight: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        ignore_void: bool = False,
        class_chunk: int = CLASS_CHUNK,
    ) -> None:
        super().__init__()
        if class_chunk < 1:
            raise ValueError(f'class_chunk must be at least 1, not {class_chunk}')
        self.mask_weight = mask_weight * loss_weight
        self.dice_weight = dice_weight * loss_weight
        self.ssim_weight = ssim_weight * loss_weight
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
        """Compute the terms.

        Args:
            mask_logits: ``(N, K, h, w)``; resized to the labels bilinearly.
            labels: ``(N, H, W)``, class indices or ``ignore_index``.
            ignore_index: the label that is no class.
            align_corners: of the resize; the official code has False.

        Returns:
            scalars ``loss_mask`` and ``loss_dice``, and ``loss_ssim`` if it has weight.
        """
        mask_logits = at_least_float32(mask_logits)
        labelled = labels != ignore_index  # (N, H, W)
        counts = _pixels_of_class(labels, labelled, mask_logits.shape[1])  # (N, K)
        labels = torch.where(labelled, labels, -1)
        with torch.autocast(mask_logits.device.type, enabled=False):
            focal, dice = _FocalAndDice.apply(
                mask_logits, labels, (counts > 0).tolist(), align_corners, self
            )
            present = _num_masks(counts)
            losses = {
                'loss_mask': self.mask_weight * focal / present,
                'loss_dice': self.dice_weight * dice / present,
            }
            if self.ssim_weight:
                similarity = self._similarity(mask_logits, labels, align_corners)
                losses['loss_ssim'] = self.ssim_weight * (1 - similarity)
        return losses

    def divisors(self, labels: Tensor, ignore_index: int) -> dict[str, Divisor]:
        """Return what the terms are divided by, for labels as in :meth:`forward`."""
        masks = masks_divisor(labels, ignore_index)
        found = {'loss_mask': masks, 'loss_dice': masks}
        if self.ssim_weight:
            labelled = labels != ignore_index
            counted = labelled if self.ignore_void else torch.ones_like(labelled)
            found['loss_ssim'] = Divisor(counted.sum())
        return found

    def _similarity(
        self, mask_logits: Tensor, labels: Tensor, align_corners: bool
    ) -> Tensor:
        """Return the mean structural similarity of masks and one-hot targets."""

        def of_chunk(logits: Tensor, first: int) -> Tensor:
            logits = resize_by_products(logits, labels.shape[1:], align_corners)
            classes = torch.arange(first, first + logits.shape[1], device=labels.device)
            target = (labels[:, None] == classes[:, None, None]).to(logits.dtype)
            similar = structural_similarity(logits, target)
            return (similar * counted if self.ignore_void else similar).sum()

        counted = (labels >= 0)[:, None]
        pixels = counted.sum().clamp(min=1) if self.ignore_void else labels.numel()
        sums = [
            checkpoint(
                of_chunk,
                part,
                index * self.class_chunk,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for index, part in enumerate(mask_logits.split(self.class_chunk, dim=1))
        ]
        return torch.stack(sums).sum() / (mask_logits.shape[1] * pixels)

    def focal(self, maps: ResizedMaps, counted: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the focal terms of some classes, summed, and their slopes ``(k, X)``.

        ``counted`` ``(1, X)`` is 1 at the pixels that count, None: all.
        """
        power, s, slope = self._negative(maps.logits)
        values = power.mul_(s)
        own_power, own_s, own_slope = self._negative(-maps.logits.gather(0, maps.row))
        own_values = self.alpha * own_power.mul_(own_s)
        own_values -= (1 - self.alpha) * values.gather(0, maps.row)
        pixels: Tensor | float = float(maps.logits.shape[1])
        if counted is not None:
            values, slope = values.mul_(counted), slope.mul_(counted)
            pixels = counted.sum().clamp(min=1)
        slope *= 1 - self.alpha
        own_slope = torch.where(
            maps.own, own_slope.mul_(-self.alpha), slope.gather(0, maps.row)
        )
        slope.scatter_(0, maps.row, own_slope)
        value = (1 - self.alpha) * values.sum() + (own_values * maps.own).sum()
        return value / pixels, slope.div_(pixels)

    def _negative(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``p^gamma``, ``s = -log(1 - p)`` and the slope of ``p^gamma s``.

        The slope is ``p^gamma (gamma (1 - p) s + p)``. A positive pixel has the term of
        a negative one with the logit's sign turned round.
        """
        p, rest = logits.sigmoid(), logits.neg().sigmoid_()
        # Several times faster than softplus, which it equals: where the logarithm
        # reaches the end of the numbers, it is the logit itself.
        s = rest.clamp_min(torch.finfo(rest.dtype).tiny).log_().neg_()
        s = torch.maximum(s, logits, out=s)
        power = p.pow(self.gamma)
        slope = rest.mul_(s).mul_(self.gamma).add_(p).mul_(power)
        return power, s, slope

    @staticmethod
    def dice(maps: ResizedMaps, counted: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the dice terms of present classes, summed, and slopes ``(k, X)``.

        With ``O = sum p t`` and ``D = sum p + sum t + 1`` the slope is ``p (1 - p) ((2
        O + 1) / D^2 - 2 t / D)``. ``counted`` as in :meth:`focal`.
        """
        p = maps.logits.sigmoid()
        slope = p * (1 - p)
        if counted is not None:
            p, slope = p.mul_(counted), slope.mul_(counted)
        own = maps.own.to(p.dtype)
        overlap, pixels = p.new_zeros(2, len(p))
        overlap.scatter_add_(0, maps.row[0], (p.gather(0, maps.row) * own)[0])
        pixels.scatter_add_(0, maps.row[0], own[0])
        below = p.sum(1) + pixels + 1
        own_slope = slope.gather(0, maps.row) * own * (-2 / below)[maps.row]
        slope *= ((2 * overlap + 1) / below.square())[:, None]
        slope.scatter_add_(0, maps.row, own_slope)
        return (1 - (2 * overlap + 1) / below).sum(), slope


class _FocalAndDice(torch.autograd.Function):
    """The sums of both terms over images and classes, and their gradients.

    Both gradients are known in closed form as soon as the sums are. They are made at
    once, class chunk by class chunk, and kept at the resolution of the logits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        mask_logits: Tensor,
        labels: Tensor,
        present: list[list[bool]],
        align_corners: bool,
        loss: NonExclusiveLoss,
    ) -> tuple[Tensor, Tensor]:
        sums = [mask_logits.new_zeros(()) for _ in range(2)]
        slopes = [torch.zeros_like(mask_logits) for _ in range(2)]
        for image, logits in enumerate(mask_logits):
            counted = None
            if loss.ignore_void:
                counted = (labels[image] >= 0).flatten()[None].to(logits.dtype)
            found = [index for index, is_there in enumerate(present[image]) if is_there]
            terms = (loss.focal, range(len(logits))), (loss.dice, found)
            for place, (term, classes) in enumerate(terms):
                for first in range(0, len(classes), loss.class_chunk):
                    chunk = list(classes[first : first + loss.class_chunk])
                    maps = ResizedMaps(logits, labels[image], chunk, align_corners)
                    value, slope = term(maps, counted)
                    sums[place] += value
                    if ctx.needs_input_grad[0]:
                        slopes[place][image, chunk] = maps.adjoint(slope)
        ctx.save_for_backward(*slopes)
        return sums[0], sums[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives()
        focal, dice = ctx.saved_tensors
        slope = gradients[0] * focal + gradients[1] * dice
        return slope, None, None, None, None


def _pixels_of_class(labels: Tensor, labelled: Tensor, num_classes: int) -> Tensor:
    """Count the labelled pixels of each class and image: ``(N, K)`` float32."""
    index = torch.where(labelled, labels, 0).flatten(1)
    counts = torch.zeros(len(labels), num_classes, device=labels.device)
    return counts.scatter_add_(1, index, labelled.flatten(1).float())


def masks_divisor(labels: Tensor, ignore_index: int) -> Divisor:
    """Return what losses of one mask per class divide by, see :func:`_num_masks`."""
    labelled = labels != ignore_index
    num_classes = int(labels.where(labelled, 0).max()) + 1
    counts = _pixels_of_class(labels, labelled, num_classes)
    return Divisor((counts > 0).sum(), over_ranks=True)


def _num_masks(counts: Tensor) -> Tensor:
    """Return how many masks ``(N, K)`` have pixels, averaged over ranks, at least 1."""
    present = (counts > 0).sum().float()
    all_reduce(present, op='mean')
    return present.clamp(min=1)


#: Radius and deviation of the windows of structural similarity, in pixels.
_SSIM_RADIUS, _SSIM_SIGMA = 5, 1.5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2


def structural_similarity(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity of two stacks of maps, pixel by pixel: ``(N, C, H, W)``.

    Wang et al. 2004, eq. 13, for values in 0..1, with zeros around the maps.
    """
    down, across = (_window_means(size, one) for size in one.shape[-2:])

    def mean(maps: Tensor) -> Tensor:
        return down @ maps @ across

    mean_one, mean_other = mean(one), mean(other)
    product = mean_one * mean_other
    squares = mean_one.square() + mean_other.square()
    spreads = mean(one * one) + mean(other * other) - squares
    covariance = mean(one * other) - product
    similarity = (2 * product + _SSIM_C1) * (2 * covariance + _SSIM_C2)
    return similarity / ((squares + _SSIM_C1) * (spreads + _SSIM_C2))


def _window_means(size: int, like: Tensor) -> Tensor:
    """Return the matrix ``(size, size)`` of weighted means over windows in a line.

    Products with it are far faster on a CPU than convolutions of single maps.
    """
    places = torch.arange(size, device=like.device)
    offsets = (places[:, None] - places).abs()
    window = torch.arange(-_SSIM_RADIUS, _SSIM_RADIUS + 1, device=like.device)

    def weight(distance: Tensor) -> Tensor:
        return torch.exp(-distance.to(like.dtype).square() / (2 * _SSIM_SIGMA**2))

    inside = torch.where(offsets <= _SSIM_RADIUS, weight(offsets), 0)
    return inside / weight(window).sum()


@MODELS.register_module()
class TrustLoss(nn.Module):
    r"""Focal loss of a map of unseen pixels (TagCLIP, arXiv 2304.07547).

    With the probability :math:`p` of the map at its target (:math:`t = 1` where a pixel
    is of an unseen class), and :math:`N` and :math:`X` as in :class:`NonExclusiveLoss`,

    .. math::
        L = \frac{w}{N} \sum_b \frac{1}{X} \sum_x a\, (1 - p)^\gamma\, (-\log p)

    where :math:`a = \alpha` for :math:`t = 1`, :math:`1 - \alpha` otherwise. The
    targets say where unseen classes are, so what is trained with it is not inductive.

    Args:
        loss_weight: :math:`w`.
        alpha: focal weight of positives, in 0..1.
        gamma: focal exponent, >= 0.
    """

    def __init__(
        self, *, loss_weight: float = 10.0, alpha: float = 0.25, gamma: float = 2.0
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.alpha = alpha
        self.gamma = gamma

    def forward(
        self,
        gate: Tensor,
        unseen: Tensor,
        labels: Tensor,
        *,
        num_classes: int,
        ignore_index: int = IGNORE_INDEX,
        align_corners: bool = False,
    ) -> Tensor:
        """Compute the loss.

        Args:
            gate: ``(N, 1, h, w)`` logits; resized to the labels bilinearly.
            unseen: ``(N, H, W)`` bool, where unseen classes are.
            labels: ``(N, H, W)``, whose masks are counted for :math:`N`.
            num_classes: how many classes the labels know.
            ignore_index: the label that is no class.
            align_corners: of the resize; the official code has False.

        Returns:
            a scalar.
        """
        gate = at_least_float32(gate)
        logits = resize_maps(gate, labels.shape[-2:], align_corners)[:, 0]
        # The sign makes a positive of either kind.
        logits = torch.where(unseen, logits, -logits)
        weights = torch.where(unseen, self.alpha, 1 - self.alpha)
        focal = weights * (-logits).sigmoid().pow(self.gamma) * F.softplus(-logits)
        labelled = labels != ignore_index
        present = _num_masks(_pixels_of_class(labels, labelled, num_classes))
        return self.loss_weight * focal.mean((1, 2)).sum() / present
