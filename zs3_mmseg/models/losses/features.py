"""Losses that compare generated features with real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.utils.labels import IGNORE_INDEX
from zs3_mmseg.utils.names import choose
from zs3_mmseg.utils.shared_draws import shared_draw

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
    """Squared distances of rows ``(..., M, F)``, ``(..., N, F)``: ``(..., M, N)``."""
    norms = one.square().sum(dim=-1)[..., None] + other.square().sum(-1)[..., None, :]
    return (norms - 2 * one @ other.mT).clamp_min(0)


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

    =============  =========================  =======================
    ``kind``       is to be real              is to be fake
    =============  =========================  =======================
    ``'l1'``       :math:`|p - 1|`            :math:`|p|`
    ``'l2'``       :math:`(p - 1)^2`          :math:`p^2`
    ``'bce'``      :math:`-\log p`            :math:`-\log(1 - p)`
    ``'wgan'``     :math:`-p`                 :math:`p`
    ``'wgan_gp'``  as ``'wgan'``              and a gradient penalty
    =============  =========================  =======================

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
