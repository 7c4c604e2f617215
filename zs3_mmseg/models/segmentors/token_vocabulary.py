"""Classes of one name each, with what the text tower says about single tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings.token_rows import (
    TokenQueries,
    TokenRows,
    split_token_rows,
)

from .open_vocabulary import OpenVocabulary


class TokenVocabulary(OpenVocabulary):
    """The part of :class:`ClassPromptedSegmentor` that knows its classes.

    If the bank gives token features, rows carry them behind the embedding, so that
    checkpoints and caches need not know about them.
    """

    #: Length ``E`` of an embedding, without token features.
    embed_dim: int
    #: Whether the bank gives token features.
    has_tokens: bool

    def _init_classes(
        self, class_embeddings: Mapping | Any | None, split: Any, setting: str
    ) -> None:
        """Build the bank, and refuse classes of several names.

        Raises:
            ValueError: if there is no bank, or a class has several names.
        """
        if class_embeddings is None:
            raise ValueError(
                'ClassPromptedSegmentor reads class names: set model.class_embeddings'
            )
        bank: Any = class_embeddings
        if isinstance(bank, Mapping):
            bank = MODELS.build(dict(bank))
        self.embed_dim = bank.dim
        self.has_tokens = bool(getattr(bank, 'token_features', False))
        rows = TokenRows(bank) if self.has_tokens else bank
        super()._init_classes(rows, split, setting)
        several = [name for name in self.split.classes if '|' in name]
        if several:
            raise ValueError(
                f'ClassPromptedSegmentor asks for one name at a time, but split '
                f'{self.split.name!r} has {several[0]!r}'
            )

    def training_queries(self) -> TokenQueries:
        """Return the rows used in training, with token features if there are any."""
        return split_token_rows(super().training_queries(), self.embed_dim)

    def current_queries(self) -> TokenQueries:
        """Return the rows of the current classes, with token features if any."""
        return split_token_rows(super().current_queries(), self.embed_dim)

    def _fitting_rows(self, embeddings: Tensor, names: Sequence[str]) -> list[Tensor]:
        rows = super()._fitting_rows(embeddings, names)
        width = rows[0].shape[1]
        if width % self.embed_dim or self.has_tokens == (width == self.embed_dim):
            layout = f'{self.embed_dim} values'
            if self.has_tokens:
                layout += ', and as many for each token of its text behind them'
            raise ValueError(
                f'the given embeddings have {width} columns, expected {layout}'
            )
        return rows
