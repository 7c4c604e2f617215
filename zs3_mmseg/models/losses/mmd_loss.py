"""Maximum mean discrepancy between generated and real features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmseg.registry import MODELS

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
