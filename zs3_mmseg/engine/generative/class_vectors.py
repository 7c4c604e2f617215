"""One vector per class, for generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank
from zs3_mmseg.utils.cache import content_hash


def class_vectors(
    bank: Mapping[str, Any] | ClassEmbeddingBank,
    names: Sequence[str],
    aliases: Mapping[str, str] | None = None,
) -> Tensor:
    """Return one row for each class; synonyms are averaged.

    Args:
        bank: a ``ClassEmbeddingBank`` or its config.
        names: class names.
        aliases: what to look up in place of a class name, e.g. ``tvmonitor='tv'``.

    Returns:
        ``(K, E)`` float32 on the CPU.

    Raises:
        ValueError: if a name has no vector, or an alias is for no class.
    """
    aliases = dict(aliases or {})
    strangers = [name for name in aliases if name not in names]
    if strangers:
        raise ValueError(
            f'vector_names has entries for {", ".join(strangers)}, which are no '
            f'classes of the training data set: {", ".join(names)}'
        )
    built = (
        MODELS.build({'type': 'ClassEmbeddingBank', **bank})
        if isinstance(bank, Mapping)
        else bank
    )
    found = built.embed([aliases.get(name, name) for name in names])
    sums = torch.zeros(len(names), found.embeddings.shape[1])
    sums.index_add_(0, found.query_to_class, found.embeddings)
    return sums / torch.bincount(found.query_to_class)[:, None]


def vectors_hash(vectors: Tensor) -> str:
    """Return a hash of vectors that survives the rounding of their making."""
    rounded = (vectors.double() * 1e4).round().to(torch.int64)
    return content_hash(str(tuple(vectors.shape)), rounded.numpy().tobytes())
