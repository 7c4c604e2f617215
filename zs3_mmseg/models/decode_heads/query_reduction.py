"""From one map per class query to one map per class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: How the queries of a class (its synonyms) become one logit. ``max`` takes the best
#: synonym; ``sum`` adds their probabilities, which is a log-sum-exp of logits.
REDUCTIONS = ('max', 'sum')


def check_reduction(how: str, score_kind: str) -> None:
    """Validate a ``query_reduce`` option.

    Raises:
        ValueError: for an unknown reduction, or ``sum`` without a joint softmax.
    """
    if how not in REDUCTIONS:
        raise ValueError(f'query_reduce must be one of {REDUCTIONS}, not {how!r}')
    if how == 'sum' and score_kind != 'softmax':
        raise ValueError(
            "query_reduce='sum' adds probabilities of one softmax over all queries; "
            f"a head with score_kind={score_kind!r} needs 'max'"
        )


def reduce_queries(
    logits: Tensor, queries_per_class: Sequence[int], how: str
) -> Tensor:
    """Reduce query logits to class logits.

    Args:
        logits: ``(N, Q, ...)``, the queries of a class side by side.
        queries_per_class: how many of the ``Q`` belong to each of the ``K`` classes.
        how: one of :data:`REDUCTIONS`.

    Returns:
        ``(N, K, ...)``; ``logits`` itself if every class has one query.
    """
    if len(queries_per_class) == logits.shape[1]:
        return logits
    parts = logits.split(list(queries_per_class), dim=1)
    if how == 'max':
        return torch.stack([part.amax(dim=1) for part in parts], dim=1)
    return torch.stack([part.logsumexp(dim=1) for part in parts], dim=1)
