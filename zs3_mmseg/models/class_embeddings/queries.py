"""What a decode head gets to know about the classes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


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
