"""Optimal transport between the patches of an image and the rows of a class (OTSeg)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zs3_mmseg.utils.names import choose

if TYPE_CHECKING:
    from .relation_decoder import Layout

#: What the official code adds to weights before their logarithm.
_LOG_EPS = 1e-8
#: Which problems of one call stop at the same round.
STOPS = ('together', 'each')


class Transport(NamedTuple):
    """An entropic transport plan.

    Attributes:
        plan: ``(B, M, P)``, how much of row ``m`` goes to column ``p``.
        rounds: how many rounds it took.
    """

    plan: Tensor
    rounds: int


def sinkhorn(
    cost: Tensor,
    row_weights: Tensor | None = None,
    column_weights: Tensor | None = None,
    *,
    eps: float = 0.05,
    max_rounds: int = 100,
    tolerance: float = 1e-6,
    stop: str = 'together',
) -> Transport:
    r"""Solve ``B`` transport problems by Sinkhorn's iterations in the log domain.

    With rows ``m``, columns ``p`` and their weights :math:`\mu, \nu`, a round is

    .. math::
        u_m &= \epsilon (\log \mu_m - \log \sum_p \exp((v_p - c_{mp}) / \epsilon)) \\
        v_p &= \epsilon (\log \nu_p - \log \sum_m \exp((u_m - c_{mp}) / \epsilon))

    from :math:`u = v = 0`, and the plan :math:`\exp((u_m + v_p - c_{mp}) / \epsilon)`.
    Its column sums are exact. Gradients pass through all rounds (OTSeg, ECCV 2024,
    ``decode_seg.py`` of the official code).

    Args:
        cost: ``(B, M, P)``.
        row_weights: ``(B, M)``; None: ``1 / M`` each.
        column_weights: ``(B, P)``; None: ``1 / P`` each.
        eps: weight of the entropy, in units of the cost.
        max_rounds: the most rounds.
        tolerance: it stops when the mean of ``|u - previous u|`` is less.
        stop: the mean is over ``'together'`` all rows of all problems, as published,
            so that what is in a call changes the last digits of all its plans; or over
            the rows of ``'each'`` problem, which then stops by itself.
    """
    batch, rows, columns = cost.shape
    log_rows = _log_weights(row_weights, cost, rows).unsqueeze(2)  # (B or 1, M, 1)
    log_columns = _log_weights(column_weights, cost, columns).unsqueeze(1)
    scores = -cost / eps
    # Both in units of eps.
    u = cost.new_zeros(batch, rows, 1)
    v = cost.new_zeros(batch, 1, columns)
    going = torch.ones(batch, 1, 1, dtype=torch.bool, device=cost.device)
    done = 0
    while done < max_rounds and bool(going.any()):
        done += 1
        new_u = log_rows - torch.logsumexp(v + scores, dim=2, keepdim=True)
        change = eps * (new_u - u).detach().abs()
        new_v = log_columns - torch.logsumexp(new_u + scores, dim=1, keepdim=True)
        if stop == 'each':
            u, v = torch.where(going, new_u, u), torch.where(going, new_v, v)
            going = going & (change.mean(dim=1, keepdim=True) >= tolerance)
        else:
            u, v = new_u, new_v
            going = change.mean() >= tolerance
    return Transport((u + v + scores).exp(), done)


def _log_weights(weights: Tensor | None, cost: Tensor, count: int) -> Tensor:
    """Return the logarithm of given or of uniform weights, ``(B or 1, count)``."""
    if weights is None:
        weights = cost.new_full((1, count), 1 / count)
    return (weights + _LOG_EPS).log()


class PromptTransport(nn.Module):
    """Couples the patches of an image to the rows of each class, by their cosines.

    Args:
        eps: see :func:`sinkhorn`, like the others.
        max_rounds: the most rounds.
        tolerance: of the test that stops it.
        stop: whether classes and images stop ``'together'`` or ``'each'`` by itself.
    """

    def __init__(
        self,
        *,
        eps: float = 0.05,
        max_rounds: int = 100,
        tolerance: float = 1e-6,
        stop: str = 'together',
    ) -> None:
        super().__init__()
        if eps <= 0 or max_rounds < 1:
            raise ValueError(
                f'eps={eps} and max_rounds={max_rounds} of sinkhorn must be above 0'
            )
        self.options: dict[str, Any] = dict(
            eps=eps,
            max_rounds=max_rounds,
            tolerance=tolerance,
            stop=choose('stop of sinkhorn', stop, STOPS),
        )

    def forward(
        self, query: Tensor, memory: Tensor, rows: int
    ) -> tuple[Tensor, Tensor]:
        """Match queries ``(N, Q * P, E)`` to patches ``(N, M, E)``.

        Returns plans and cosines, ``(N, Q, M, P)`` each, in float32.
        """
        with torch.autocast(query.device.type, enabled=False):
            own = F.normalize(query.float(), dim=-1).unflatten(1, (-1, rows))
            patches = F.normalize(memory.float(), dim=-1)
            cosines = torch.einsum('nme,nqpe->nqmp', patches, own)
            plan, _ = sinkhorn(1 - cosines.flatten(0, 1), **self.options)
        return plan.view_as(cosines), cosines


def transported(plan: Tensor, cosines: Tensor) -> Tensor:
    """Return ``M P sum_p plan * cosine`` of ``(N, Q, M, P)``: ``(N, Q, M)``.

    With the uniform plan it is the mean of the cosines.
    """
    return plan.shape[2] * plan.shape[3] * (plan * cosines).sum(-1)


class _SinkhornMap(nn.Module):
    """The plan, and the masks that a layer makes of it."""

    def __init__(self, dim: int, mask_from: str, **options: Any) -> None:
        super().__init__()
        self.mask_from = mask_from
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.transport = PromptTransport(**options)

    def start_as_cosine(self, scale: float, query_length: float) -> None:
        """Compare queries and patches as they are; their lengths do not count."""
        if scale != 1:
            raise ValueError(
                f'cosine_start={scale}: masks of a transport plan are cosines, so that '
                'it must be 1.0 here; mask_scale is a factor on them'
            )
        for projection in (self.q, self.k):
            nn.init.eye_(projection.weight)
            nn.init.zeros_(projection.bias)

    def plan(
        self, query: Tensor, memory: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """Return plans ``(N, Q, M, P)`` and masks ``(N, Q, M)``."""
        q, k = self.q(query), self.k(memory)
        plan, cosines = self.transport(q, k, layout.rows)
        masks = cosines.mean(-1)
        if self.mask_from == 'plan':
            masks = transported(plan, cosines)
        return plan, masks.to(q.dtype)


class SinkhornAttention(_SinkhornMap):
    """Attention whose weights are the transport plan of each class.

    One head: ``num_heads`` is of no effect, as in the official code. A row's weights
    sum to ``1 / P``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        dropout: float = 0.1,
        mask_from: str = 'attention',
        **options: Any,
    ) -> None:
        super().__init__(dim, mask_from, **options)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, query: Tensor, memory: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """Attend with queries ``(N, Q * P, E)`` to patches ``(N, M, E)``.

        Returns the attended values ``(N, Q * P, E)`` and the masks ``(N, Q, M)``.
        """
        plan, masks = self.plan(query, memory, layout)
        value = self.v(memory)
        weights = self.drop(plan).to(value.dtype)
        attended = torch.einsum('nqmp,nme->nqpe', weights, value)
        return self.proj(attended.flatten(1, 2)), masks


class SinkhornMatching(_SinkhornMap):
    """The last layer, of whose attention only the masks are used."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mask_from: str = 'attention',
        **options: Any,
    ) -> None:
        super().__init__(dim, mask_from, **options)

    def forward(self, query: Tensor, memory: Tensor, layout: Layout) -> Tensor:
        """Return masks ``(N, Q, M)`` of queries ``(N, Q * P, E)``."""
        return self.plan(query, memory, layout)[1]
