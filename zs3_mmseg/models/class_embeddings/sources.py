"""What every source of class embeddings offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from zs3_mmseg.utils.origins import origin_of_file


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


def require_file(path: Path, what: str) -> None:
    """Check that the file of a source exists.

    Args:
        path: the file.
        what: what is in it, in the plural.

    Raises:
        FileNotFoundError: naming the key to change, and where the file comes from if
            that is known.
    """
    if path.is_file():
        return
    origin = origin_of_file(path.name)
    raise FileNotFoundError(
        f'the {what} {path} of class_embeddings.source.path do not exist'
        + (f'; get them: {origin}' if origin else '')
    )
