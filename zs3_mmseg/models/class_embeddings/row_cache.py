"""Rows of class embeddings on disk, found by the hash of what they depend on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mmengine.logging import print_log

from zs3_mmseg.utils.cache import atomic_write, cache_dir

_ROWS = 'rows'


def cached_rows(
    key: str, shape: tuple[int, ...], compute: Callable[[], Tensor]
) -> Tensor:
    """Return rows from the cache, or compute and keep them.

    Several processes may do so at once: each writes the same rows in one step. A
    damaged file is computed again, and a cache that cannot be written is done without.

    Args:
        key: hash of everything the rows depend on.
        shape: of the rows, ``(Q, D)``, or ``(Q, L, W)`` for outputs of single tokens.
        compute: makes the rows, float32.
    """
    path = cache_dir() / 'class_embeddings' / f'{key}.safetensors'
    rows = _read(path, shape)
    if rows is None:
        rows = compute()
        _write(path, rows)
    return rows


def _read(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # Opened once: another process may replace or remove the file meanwhile.
        rows = load(path.read_bytes()).get(_ROWS)
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError) as error:
        _warn(f'{path} is computed again: {error}')
        return None
    if rows is None or tuple(rows.shape) != shape or rows.dtype != torch.float32:
        _warn(f'{path} is computed again: it does not hold {shape} float32 rows')
        return None
    return rows


def _write(path: Path, rows: Tensor) -> None:
    from safetensors.torch import save

    content = save({_ROWS: rows.contiguous()})
    try:
        atomic_write(path, lambda stream: stream.write(content))
    except OSError as error:
        _warn(f'class embeddings are not cached: {error}')


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
