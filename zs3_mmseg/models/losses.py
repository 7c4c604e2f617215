"""Losses of zero-shot segmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmengine.dist import all_reduce
from mmseg.registry import MODELS

from zs3_mmseg.utils.labels import IGNORE_INDEX
from zs3_mmseg.utils.names import choose
from zs3_mmseg.utils.shared_draws import shared_draw

from .resize import resize_for_loss, resize_maps

__all__ = [
    'AdversarialLoss',
    'ContentLoss',
    'EdgeAttentionLoss',
    'MMDLoss',
    'NonExclusiveLoss',
    'QFSLLoss',
    'TrustLoss',
    'pixel_cross_entropy',
    'pixel_mean',
]

#: Variances of the official code of ZS3Net; its paper names 60 in place of 80.
ZS3_BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)

#: Classes of an image at label resolution at a time: few enough for a cache, enough to
#: keep a device busy.
CLASS_CHUNK = 16


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
    """Squared distances of rows ``(..., M, F)``, ``(..., N, F)``: ``(..., M, N)``."""
    norms = one.square().sum(dim=-1)[..., None] + other.square().sum(-1)[..., None, :]
    return (norms - 2 * one @ other.mT).clamp_min(0)


class _Maps:
    """Logits of some classes of one image at label resolution.

    Attributes:
        logits: ``(k, X)``, at the ``X`` pixels of the labels.
        own: ``(1, X)``, whether the label of a pixel is one of the classes.
        row: ``(1, X)``, which one; 0 where it is none.
    """

    def __init__(
        self,
        logits: Tensor,
        labels: Tensor,
        classes: Sequence[int],
        align_corners: bool,
    ) -> None:
        """Take ``(K, h, w)`` logits, ``(H, W)`` labels (-1: none) and class numbers."""
        with torch.enable_grad():
            self._small = logits.detach()[classes][None].requires_grad_()
            self._full = resize_for_loss(self._small, labels.shape, align_corners)
        self.logits = self._full.detach()[0].flatten(1)
        # The last place is that of -1.
        rows = labels.new_full((len(logits) + 1,), -1)
        rows[classes] = torch.arange(len(classes), device=labels.device)
        row = rows[labels.flatten()][None]
        self.own, self.row = row >= 0, row.clamp(min=0)

    def adjoint(self, slopes: Tensor) -> Tensor:
        """Turn slopes ``(k, X)`` of the full maps into those of the small."""
        slopes = slopes.view_as(self._full)
        return torch.autograd.grad(self._full, self._small, slopes)[0][0]


def _refuse_second_derivatives() -> None:
    """Raise in a backward pass that is to be differentiated itself."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            'this loss makes its gradient with its value, and has no second '
            'derivative: drop create_graph=True, or take a penalty on gradients of '
            'something else'
        )


def pixel_mean(
    loss: Callable[[Tensor, Tensor], Tensor],
    maps: Tensor,
    labels: Tensor,
    *,
    ignore_index: int,
    align_corners: bool = False,
) -> Tensor:
    """Mean of a loss over the labelled pixels of a batch; 0 if no pixel is labelled.

    Maps are resized to the labels image by image, and resized once more in the backward
    pass instead of being kept: with 156 classes at 512x512, a batch of 16 would
    otherwise keep 2.6 GB twice.

    Args:
        loss: from maps ``(1, K, H, W)`` and labels ``(1, H, W)`` of an image to the sum
            over its labelled pixels.
        maps: ``(N, K, h, w)``.
        labels: ``(N, H, W)``.
        ignore_index: label of pixels that do not count.
        align_corners: of the resize.
    """

    def one_image(image_maps: Tensor, image_labels: Tensor) -> Tensor:
        size = image_labels.shape[-2:]
        return loss(resize_for_loss(image_maps, size, align_corners), image_labels)

    losses = [
        checkpoint(
            one_image,
            image_maps,
            image_labels,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for image_maps, image_labels in zip(
            maps.float().split(1), labels.split(1), strict=True
        )
    ]
    labelled = (labels != ignore_index).sum().clamp(min=1)
    return torch.stack(losses).sum() / labelled


def pixel_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int,
    align_corners: bool = False,
    class_chunk: int = CLASS_CHUNK,
) -> Tensor:
    """Mean softmax cross-entropy over the labelled pixels ``V`` of a batch.

    ``L = 1/|V| sum_{x in V} (log sum_k exp(z_kx) - z_yx)`` of the logits ``z (N, K, h,
    w)``, resized to the labels ``y (N, H, W)``, which are in ``0..K-1`` or
    ``ignore_index``; 0 if no pixel is labelled.

    Logits are resized image by image and ``class_chunk`` classes at a time: once for
    the sum under the logarithm, and once more for the gradient, ``softmax(z)_k - [k =
    y]``, which is made at once and kept at the resolution of the logits. A second
    derivative is refused.
    """
    labelled = labels != ignore_index
    precise = torch.promote_types(logits.dtype, torch.float32)
    with torch.autocast(logits.device.type, enabled=False):
        total = _CrossEntropy.apply(
            logits.to(precise),
            torch.where(labelled, labels, -1),
            align_corners,
            class_chunk,
        )
    return total / labelled.sum().clamp(min=1)


class _CrossEntropy(torch.autograd.Function):
    """The cross-entropy of all labelled pixels, summed, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, align_corners: bool, class_chunk: int
    ) -> Tensor:
        value, slopes = logits.new_zeros(()), torch.zeros_like(logits)
        num_classes = logits.shape[1]
        chunks = [
            list(range(first, min(first + class_chunk, num_classes)))
            for first in range(0, num_classes, class_chunk)
        ]
        for image in range(len(logits)):
            labelled = (labels[image] >= 0).flatten()  # (X,)
            below: Tensor | None = None
            for chunk in chunks:
                maps = _Maps(logits[image], labels[image], chunk, align_corners)
                part = maps.logits.logsumexp(0)
                below = part if below is None else torch.logaddexp(below, part)
                value -= (maps.logits.gather(0, maps.row) * maps.own).sum()
            assert below is not None  # there is at least one class
            value += (below * labelled).sum()
            for chunk in chunks if ctx.needs_input_grad[0] else ():
                if len(chunks) > 1:
                    maps = _Maps(logits[image], labels[image], chunk, align_corners)
                slope = (maps.logits - below).exp_().mul_(labelled)
                slope.scatter_add_(0, maps.row, -maps.own.to(slope.dtype))
                slopes[image, chunk] = maps.adjoint(slope)
        ctx.save_for_backward(slopes)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        (slopes,) = ctx.saved_tensors
        return gradient * slopes, None, None, None


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
        # Half precision has too few digits for sums over pixels.
        mask_logits = mask_logits.to(
            torch.promote_types(mask_logits.dtype, torch.float32)
        )
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

    def _similarity(
        self, mask_logits: Tensor, labels: Tensor, align_corners: bool
    ) -> Tensor:
        """Return the mean structural similarity of masks and one-hot targets."""

        def of_chunk(logits: Tensor, first: int) -> Tensor:
            logits = resize_for_loss(logits, labels.shape[1:], align_corners)
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

    def focal(self, maps: _Maps, counted: Tensor | None) -> tuple[Tensor, Tensor]:
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
    def dice(maps: _Maps, counted: Tensor | None) -> tuple[Tensor, Tensor]:
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
                    maps = _Maps(logits, labels[image], chunk, align_corners)
                    value, slope = term(maps, counted)
                    sums[place] += value
                    if ctx.needs_input_grad[0]:
                        slopes[place][image, chunk] = maps.adjoint(slope)
        ctx.save_for_backward(*slopes)
        return sums[0], sums[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        focal, dice = ctx.saved_tensors
        slope = gradients[0] * focal + gradients[1] * dice
        return slope, None, None, None, None


def _pixels_of_class(labels: Tensor, labelled: Tensor, num_classes: int) -> Tensor:
    """Count the labelled pixels of each class and image: ``(N, K)`` float32."""
    index = torch.where(labelled, labels, 0).flatten(1)
    counts = torch.zeros(len(labels), num_classes, device=labels.device)
    return counts.scatter_add_(1, index, labelled.flatten(1).float())


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
        logits = resize_maps(gate.float(), labels.shape[-2:], align_corners)[:, 0]
        # The sign makes a positive of either kind.
        logits = torch.where(unseen, logits, -logits)
        weights = torch.where(unseen, self.alpha, 1 - self.alpha)
        focal = weights * (-logits).sigmoid().pow(self.gamma) * F.softplus(-logits)
        labelled = labels != ignore_index
        present = _num_masks(_pixels_of_class(labels, labelled, num_classes))
        return self.loss_weight * focal.mean((1, 2)).sum() / present


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


@MODELS.register_module()
class QFSLLoss(nn.Module):
    """Unlabelled pixels belong to some unseen class (QFSL, arXiv 1803.11320, eq. 6).

    ``L = -w/|V| sum_{x in V} log sum_{u unseen} p_xu`` over the unlabelled pixels ``V``
    with the softmax ``p`` over all classes; 0 if there are none. It says that they are
    unseen, not which class they are of. Such pixels are known in the transductive
    setting alone.

    Args:
        loss_weight: ``w``, > 0.

    Raises:
        ValueError: for a weight that is not positive.
    """

    def __init__(self, loss_weight: float = 0.1) -> None:
        super().__init__()
        if not loss_weight > 0:
            raise ValueError(f'QFSLLoss.loss_weight must be > 0, not {loss_weight}')
        self.loss_weight = loss_weight

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        seen_mask: Tensor,
        unlabelled_index: int,
        align_corners: bool = False,
    ) -> Tensor:
        """Return the loss.

        Args:
            logits: ``(N, K, h, w)``, resized bilinearly to the labels.
            labels: ``(N, H, W)``.
            seen_mask: ``(K,)`` bool; at least one class is unseen.
            unlabelled_index: the label of the pixels that count.
            align_corners: of the resize.
        """

        def summed(full: Tensor, places: Tensor) -> Tensor:
            unseen = full[:, ~seen_mask].logsumexp(dim=1)
            return ((full.logsumexp(dim=1) - unseen) * (places == 0)).sum()

        places = torch.where(labels == unlabelled_index, 0, 1)
        mean = pixel_mean(
            summed, logits, places, ignore_index=1, align_corners=align_corners
        )
        return self.loss_weight * mean


#: Variances of the official code of CaGNet.
CAGNET_BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0)


@MODELS.register_module()
class ContentLoss(nn.Module):
    r"""How far generated features are from the real ones of the same pixels (CaGNet).

    ``kind='mmd'`` (the released code) compares groups of pixels: with the kernel
    :math:`k(x, y) = \sum_v \exp(-|x - y|^2 / 2v)` and, in a group of :math:`M`
    generated and :math:`N` real rows,

    .. math::
        L = \Big( \frac{M^2 + N^2}{(M + N)^2} \big( \overline{k(G, G)} +
        \overline{k(R, R)} - 2\, \overline{k(G, R)} \big) \Big)^{1/2}

    and 0 where the sum is not positive; here :math:`M = N`, so the factor is 1/2. The
    loss is the plain mean over groups. ``'l1'`` and ``'mse'`` (the paper's eq. 6, but
    for a mean in place of a sum) compare pixel by pixel.

    Args:
        kind: ``'mmd'``, ``'l1'`` or ``'mse'``.
        grouping: of ``'mmd'``. ``'class'``: the pixels of a class in an image.
            ``'run'``, as released: valid pixels of the batch in the order of image,
            row and column are cut wherever the label changes, so a run of one pixel
            counts as much as a long one, and one may go on in the next image.
        samples_per_group: of a class in an image, compare that many pixels, drawn anew
            each time; None: all. Runs are always compared as a whole.
        bandwidths: the variances :math:`v`.

    Raises:
        ValueError: for an unknown choice, or options that ``kind`` or ``grouping`` has
            no use for.
    """

    def __init__(
        self,
        kind: str = 'mmd',
        *,
        grouping: str | None = None,
        samples_per_group: int | None = None,
        bandwidths: Sequence[float] = CAGNET_BANDWIDTHS,
    ) -> None:
        super().__init__()
        self.kind = choose('ContentLoss.kind', kind, ('mmd', 'l1', 'mse'))
        if grouping is not None and kind != 'mmd':
            raise ValueError(
                f"ContentLoss.grouping={grouping!r} is for kind='mmd': {kind!r} "
                'compares pixel by pixel'
            )
        self.grouping = choose(
            'ContentLoss.grouping', grouping or 'class', ('class', 'run')
        )
        if samples_per_group is not None and (kind, self.grouping) != ('mmd', 'class'):
            raise ValueError(
                f'ContentLoss.samples_per_group={samples_per_group} is for '
                "kind='mmd' with grouping='class'"
            )
        self.samples_per_group = samples_per_group
        self.bandwidths = tuple(bandwidths)

    def forward(
        self,
        generated: Tensor,
        real: Tensor,
        labels: Tensor,
        ignore_index: int = IGNORE_INDEX,
    ) -> tuple[Tensor, Tensor]:
        """Sum over what is compared; the loss is the sum over the number.

        Args:
            generated: ``(N, F, h, w)``.
            real: ``(N, F, h, w)``, taken as constants.
            labels: ``(N, h, w)``.
            ignore_index: the label of pixels that do not count.

        Returns:
            the sum and the number of groups, or of values, both scalars.
        """
        made = generated.float().permute(0, 2, 3, 1).flatten(0, 2)  # (P, F)
        true = real.detach().float().permute(0, 2, 3, 1).flatten(0, 2)
        valid = labels != ignore_index
        if self.kind != 'mmd':
            difference = (made - true)[valid.flatten()]
            values = difference.abs() if self.kind == 'l1' else difference.square()
            return values.sum(), made.new_tensor(float(values.numel()))
        if self.grouping == 'run':
            groups = _runs(labels, valid)
        else:
            groups = _classes_of_images(labels, valid, self.samples_per_group)
        total, count = made.new_zeros(()), 0
        for rows in groups:
            total = total + self.of_sets(made[rows], true[rows]).sum()
            count += len(rows)
        return total, made.new_tensor(float(count))

    def of_sets(self, generated: Tensor, real: Tensor) -> Tensor:
        """Compare sets ``(..., M, F)`` and ``(..., N, F)``: ``(...)`` values."""
        centre = real.mean(dim=-2, keepdim=True)
        generated, real = generated - centre, real - centre
        m, n = generated.shape[-2], real.shape[-2]
        squared = (
            self._mean(generated, generated)
            + self._mean(real, real)
            - 2 * self._mean(generated, real)
        ) * ((m * m + n * n) / (m + n) ** 2)
        positive = squared > 0
        return torch.where(positive, torch.where(positive, squared, 1).sqrt(), 0)

    def _mean(self, one: Tensor, other: Tensor) -> Tensor:
        distances = squared_distances(one, other)
        kernels = [torch.exp(distances / (-2 * v)) for v in self.bandwidths]
        return torch.stack(kernels).sum(dim=0).mean(dim=(-2, -1))


def _runs(labels: Tensor, valid: Tensor) -> list[Tensor]:
    """Places of valid pixels ``(G, L)`` by runs of equal labels, for each ``L``."""
    places = valid.flatten().nonzero().flatten()
    _, lengths = labels.flatten()[places].unique_consecutive(return_counts=True)
    return _by_length(places, lengths, lengths)


def _classes_of_images(
    labels: Tensor, valid: Tensor, samples: int | None
) -> list[Tensor]:
    """Places of pixels ``(G, L)`` of a class in an image, for each ``L``."""
    width = int(labels.max()) + 1
    images = torch.arange(len(labels), device=labels.device)[:, None, None]
    keys = (images * width + labels).flatten()
    places = valid.flatten().nonzero().flatten()
    if samples is not None:  # a random order, of which the beginning is taken
        order = shared_draw(torch.rand, *labels.shape, device=labels.device).flatten()
        places = places[order[places].argsort()]
    places = places[keys[places].argsort(stable=True)]
    _, lengths = keys[places].unique_consecutive(return_counts=True)
    taken = lengths if samples is None else lengths.clamp(max=samples)
    return _by_length(places, lengths, taken)


def _by_length(places: Tensor, lengths: Tensor, taken: Tensor) -> list[Tensor]:
    """Cut ``(P,)`` into groups of ``lengths``; of each keep the first ``taken``."""
    starts = lengths.cumsum(0) - lengths
    return [
        places[
            starts[taken == length][:, None]
            + torch.arange(length, device=places.device)
        ]
        for length in taken.unique().tolist()
    ]


@MODELS.register_module()
class AdversarialLoss(nn.Module):
    r"""What discriminator and generator play for (CaGNet, arXiv 2008.06893, eq. 4).

    Of the discriminator's logit :math:`d` and :math:`p = \sigma(d)` at each pixel:

    ============  =========================  =======================
    ``kind``      is to be real              is to be fake
    ============  =========================  =======================
    ``'l1'``      :math:`|p - 1|`            :math:`|p|`
    ``'l2'``      :math:`(p - 1)^2`          :math:`p^2`
    ``'bce'``     :math:`-\log p`            :math:`-\log(1 - p)`
    ``'wgan'``    :math:`-p`                 :math:`p`
    ``'wgan_gp'`` as ``'wgan'``              and a gradient penalty
    ============  =========================  =======================

    The paper states ``'l2'``; the released configs say ``lsgan`` and compute ``'l1'``.
    The generator wants its features to be taken for real ones.

    Args:
        kind: see above.
        penalty: weight of the gradient penalty.

    Raises:
        ValueError: for another ``kind``.
    """

    def __init__(self, kind: str = 'l2', *, penalty: float = 10.0) -> None:
        super().__init__()
        kinds = ('l1', 'l2', 'bce', 'wgan', 'wgan_gp')
        self.kind = choose('AdversarialLoss.kind', kind, kinds)
        self.penalty = penalty

    def real(self, logits: Tensor) -> Tensor:
        """Return the loss of each pixel that is to be real, of the logits' shape."""
        logits = logits.float()
        if self.kind == 'bce':
            return F.softplus(-logits)
        p = logits.sigmoid()
        if self.kind == 'l2':
            return (p - 1).square()
        return (p - 1).abs() if self.kind == 'l1' else -p

    def fake(self, logits: Tensor) -> Tensor:
        """Return the loss of each pixel that is to be fake, of the logits' shape."""
        logits = logits.float()
        if self.kind == 'bce':
            return F.softplus(logits)
        p = logits.sigmoid()
        return p.square() if self.kind == 'l2' else p

    def gradient_penalty(
        self,
        score: Callable[[Tensor], Tensor],
        real: Tensor,
        fake: Tensor,
        valid: Tensor,
        shares: Tensor,
    ) -> Tensor:
        r"""Return :math:`c\, (|\nabla \sum_x p| - 1)^2` of each image (WGAN-GP).

        Args:
            score: the discriminator, ``(N, F, h, w)`` to logits ``(N, 1, h, w)``.
            real: ``(N, F, h, w)`` features, taken as constants.
            fake: ``(N, F, h, w)``, taken as constants.
            valid: ``(N, h, w)`` bool; gradients elsewhere do not count.
            shares: ``(N, 1, 1, 1)`` in [0, 1], how much of an image is real.

        Returns:
            ``(N,)``; zeros for any other ``kind``.
        """
        if self.kind != 'wgan_gp':
            return real.new_zeros(len(real))
        between = shares * real.detach() + (1 - shares) * fake.detach()
        between.requires_grad_()
        with torch.enable_grad():
            total = score(between).sigmoid().sum()
            (slope,) = torch.autograd.grad(total, between, create_graph=True)
        lengths = (slope * valid[:, None]).flatten(1).norm(dim=1)
        return self.penalty * (lengths - 1).square()
