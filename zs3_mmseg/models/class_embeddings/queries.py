"""What a decode head gets to know about the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .bank import ClassEmbeddings


@dataclass(frozen=True)
class ClassQueries:
    """Rows of class embeddings and the classes they belong to.

    A class with synonyms has several rows; the rows of a class stand together and
    classes are in order.

    Attributes:
        embeddings: ``(Q, D)`` rows.
        query_to_class: ``(Q,)`` long, non-decreasing: the class of each row.
        seen_mask: ``(K,)`` bool, True where the class had labels in training.
        queries_per_class: how many rows each of the ``K`` classes has.
    """

    embeddings: Tensor
    query_to_class: Tensor
    seen_mask: Tensor
    queries_per_class: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        # Now, and not on demand: compiled graphs cannot read sizes out of tensors.
        counts = torch.bincount(self.query_to_class, minlength=self.num_classes)
        object.__setattr__(self, 'queries_per_class', tuple(counts.tolist()))

    @property
    def num_classes(self) -> int:
        """The number of classes ``K``."""
        return self.seen_mask.shape[0]

    def to(self, device: torch.device | str) -> ClassQueries:
        """Return the same queries on another device."""
        return replace(
            self,
            embeddings=self.embeddings.to(device),
            query_to_class=self.query_to_class.to(device),
            seen_mask=self.seen_mask.to(device),
        )


@dataclass(frozen=True)
class TokenQueries(ClassQueries):
    """:class:`ClassQueries` with the outputs of single tokens.

    Attributes:
        token_features: ``(Q, L, W)`` of each row's text; None if not asked for.
    """

    token_features: Tensor | None = None

    def to(self, device: torch.device | str) -> TokenQueries:
        """Return the same queries on another device."""
        tokens = self.token_features
        return TokenQueries(
            embeddings=self.embeddings.to(device),
            query_to_class=self.query_to_class.to(device),
            seen_mask=self.seen_mask.to(device),
            token_features=None if tokens is None else tokens.to(device),
        )

    def rows(self, which: Sequence[int] | slice | Tensor) -> TokenQueries:
        """Return some of the rows, one "class" for each, as pairs need them."""
        embeddings = self.embeddings[which]
        tokens = self.token_features
        return TokenQueries(
            embeddings=embeddings,
            query_to_class=torch.arange(len(embeddings), device=embeddings.device),
            seen_mask=self.seen_mask[self.query_to_class[which]],
            token_features=None if tokens is None else tokens[which],
        )


class TokenRows:
    """A bank whose rows carry the token features behind the embedding.

    A segmentor keeps, caches and saves rows of one width. Here a row is the embedding
    ``E`` followed by the features of its ``L`` tokens, which have the same width.

    Args:
        bank: a ``ClassEmbeddingBank`` with ``token_features=True``.
    """

    def __init__(self, bank: Any) -> None:
        self._bank = bank

    def embed(self, names: Sequence[str], **options: Any) -> ClassEmbeddings:
        """Return embeddings ``(Q, (1 + L) * E)``.

        Raises:
            ValueError: if the text tower is not as wide as its embeddings.
        """
        made = self._bank.embed(names, **options)
        tokens = made.token_features
        if tokens is None or tokens.shape[2] != made.embeddings.shape[1]:
            width = 'no' if tokens is None else f'{tokens.shape[2]}-wide'
            raise ValueError(
                f'class_embeddings gives {width} token features with embeddings of '
                f'{made.embeddings.shape[1]} values: token features need a text tower '
                'that is as wide as its embeddings'
            )
        together = torch.cat([made.embeddings[:, None], tokens], dim=1)
        return replace(made, embeddings=together.flatten(1), token_features=None)


def split_token_rows(queries: ClassQueries, embed_dim: int) -> TokenQueries:
    """Take rows of :class:`TokenRows` apart again.

    Args:
        queries: rows ``(Q, (1 + L) * E)``, or ``(Q, E)`` without token features.
        embed_dim: ``E``.

    Raises:
        ValueError: if the width is no multiple of ``E``.
    """
    width = queries.embeddings.shape[1]
    if width % embed_dim:
        raise ValueError(
            f'class embeddings of {width} values are no rows of {embed_dim} with '
            'token features behind them'
        )
    parts = queries.embeddings.unflatten(1, (-1, embed_dim))
    return TokenQueries(
        embeddings=parts[:, 0],
        query_to_class=queries.query_to_class,
        seen_mask=queries.seen_mask,
        token_features=parts[:, 1:] if parts.shape[1] > 1 else None,
    )
