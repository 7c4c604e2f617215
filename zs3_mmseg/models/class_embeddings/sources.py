"""What every source of class embeddings offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class EmbeddingSource(ABC):
    """Turns texts into rows.

    Files are opened when rows are asked for, not at construction: a checkpoint that
    carries its rows must load where the files are not.
    """

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length ``D`` of a row."""

    @abstractmethod
    def rows(
        self, texts: Sequence[str], normalize: bool, device: torch.device | str | None
    ) -> Tensor:
        """Return one row for each text.

        Args:
            texts: class names without synonyms, all different.
            normalize: whether rows are to have length 1.
            device: where to compute, if there is much to compute; None: the CPU.

        Returns:
            ``(len(texts), D)`` float32 on the CPU.
        """

    def token_features(
        self, texts: Sequence[str], device: torch.device | str | None
    ) -> Tensor:
        """Return what the source knows about every token of each text.

        Args:
            texts: as in :meth:`rows`.
            device: as in :meth:`rows`.

        Returns:
            ``(len(texts), L, W)`` float32 on the CPU.

        Raises:
            ValueError: if the source knows whole texts only.
        """
        raise ValueError(
            'class_embeddings.token_features=True needs outputs of single tokens, '
            "which only a source of type 'clip_text' has"
        )

    @abstractmethod
    def provenance(self) -> dict[str, str]:
        """Return where the rows come from, in plain strings."""


def as_list(texts: Sequence[str]) -> str:
    """Return texts as they stand in messages."""
    return ', '.join(map(repr, texts))
