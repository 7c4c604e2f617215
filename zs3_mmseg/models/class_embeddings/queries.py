"""What a decode head gets to know about the classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mmengine.logging import print_log


@dataclass(frozen=True)
class ClassQueries:
    """Rows of class embeddings and the classes they belong to.

    A class with synonyms has several queries; the queries of a class stand together
    and classes are in order. A query has one row, or the rows of several prompts that
    are not reduced to one, which are no synonyms: heads give one map per query.

    Attributes:
        embeddings: ``(Q * P, D)``, the ``P`` rows of a query side by side; or
            ``(N, Q, D)``, if each of ``N`` images has rows of its own.
        query_to_class: ``(Q,)`` long, non-decreasing: the class of each query.
        seen_mask: ``(K,)`` bool, True where the class had labels in training.
        prompts_per_row: ``P``.
        token_features: ``(Q * P, L, D)``, outputs of the text tower for each token of
            each row; None if the bank gives none.
        names: of the ``K`` classes, for what is set by name; empty if nobody said.
        queries_per_class: how many queries each of the ``K`` classes has; empty in a
            graph for any number of classes (``torch.export``), which have one each.
    """

    embeddings: Tensor
    query_to_class: Tensor
    seen_mask: Tensor
    prompts_per_row: int = 1
    token_features: Tensor | None = None
    names: tuple[str, ...] = ()
    queries_per_class: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        if torch.compiler.is_exporting():
            object.__setattr__(self, 'queries_per_class', ())
            return
        # Now, and not on demand: compiled graphs cannot read sizes out of tensors.
        counts = torch.bincount(self.query_to_class, minlength=self.num_classes)
        object.__setattr__(self, 'queries_per_class', tuple(counts.tolist()))

    @property
    def num_classes(self) -> int:
        """The number of classes ``K``."""
        return self.seen_mask.shape[0]

    def to(self, device: torch.device | str) -> ClassQueries:
        """Return the same queries on another device."""
        tokens = self.token_features
        return replace(
            self,
            embeddings=self.embeddings.to(device),
            query_to_class=self.query_to_class.to(device),
            seen_mask=self.seen_mask.to(device),
            token_features=None if tokens is None else tokens.to(device),
        )

    def against(self, other: Tensor) -> ClassQueries:
        """Return two rows for each query, ``other`` ``(1, D)`` before its own.

        Each query is then an image of its own, with the classes "other" and "named".
        """
        rows = self.embeddings
        both = torch.stack([other.to(rows).expand_as(rows), rows], dim=1)  # (Q, 2, D)
        device = rows.device
        return replace(
            self,
            embeddings=both,
            query_to_class=torch.arange(2, device=device),
            seen_mask=torch.ones(2, dtype=torch.bool, device=device),
            token_features=None,
        )

    def rows(self, which: Sequence[int] | Tensor) -> ClassQueries:
        """Return some of the queries, one "class" for each, as pairs need them."""
        index = torch.as_tensor(which, device=self.embeddings.device)
        place = index[:, None] * self.prompts_per_row + torch.arange(
            self.prompts_per_row, device=index.device
        )
        rows = place.flatten()
        classes = self.query_to_class[index]
        tokens = self.token_features
        return replace(
            self,
            embeddings=self.embeddings[rows],
            query_to_class=torch.arange(len(index), device=index.device),
            seen_mask=self.seen_mask[classes],
            names=tuple(self.names[k] for k in classes.tolist()) if self.names else (),
            token_features=None if tokens is None else tokens[rows],
        )


def equal_rows(rows: Tensor, owners: Sequence[int]) -> list[tuple[int, int]]:
    """Return pairs of classes one of whose rows ``(Q, D)`` is the same.

    Rows of one text may differ in their last digits, by the batch they were made in.
    """
    scale = rows.norm(dim=1).max()
    # Equal rows are neighbours in the order of their distance to any point.
    point = torch.arange(1, rows.shape[1] + 1).to(rows).sin()
    order = (rows @ point).argsort(stable=True)
    ordered = rows[order]
    same = (ordered[1:] - ordered[:-1]).norm(dim=1) <= 1e-5 * scale
    pairs = {
        (min(owners[a], owners[b]), max(owners[a], owners[b]))
        for a, b in torch.stack([order[:-1], order[1:]], dim=1)[same].tolist()
    }
    return sorted((a, b) for a, b in pairs if a != b)


def warn_of_equal_rows(
    rows: Tensor, owners: Sequence[int], names: Sequence[str]
) -> None:
    """Say which classes nothing can tell apart."""
    pairs = equal_rows(rows, owners)
    if pairs:
        listed = '; '.join(f'{names[a]!r} and {names[b]!r}' for a, b in pairs)
        print_log(
            'The class embeddings of these names are the same, so nothing can tell '
            f'the classes apart: {listed}. Their source cuts them, or knows the same '
            'words of them: choose other names.',
            logger='current',
            level=logging.WARNING,
        )
