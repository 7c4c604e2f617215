"""Class embeddings from a file with one row for each class."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zs3_mmseg.utils.checkpoint import safe_load_object
from zs3_mmseg.utils.names import did_you_mean, duplicates

from .sources import EmbeddingSource, as_list, require_file

_SUFFIXES = ('.npy', '.pt', '.pth', '.safetensors')
_TENSOR = 'embeddings'
_NAMES = 'names'


class _Table(NamedTuple):
    rows: Tensor
    names: tuple[str, ...] | None


class TensorSource(EmbeddingSource):
    """Rows of a ``.npy``, ``.pt``, ``.pth`` or ``.safetensors`` file.

    The names of the rows come from ``names``, from a JSON beside the file
    (``FILE.json``: a list, or an object with ``names``), or from ``names`` within the
    file. Without any, the file must have as many rows as there are texts, in their
    order. A file with several tensors has the rows under ``embeddings``.

    Args:
        path: the file.
        names: names of the rows, in order.
    """

    def __init__(self, path: str | Path, *, names: Sequence[str] | None = None) -> None:
        self.path = Path(path).expanduser()
        if self.path.suffix not in _SUFFIXES:
            raise ValueError(
                f'class_embeddings.source.path={str(path)!r} must end in '
                f'{", ".join(_SUFFIXES)}'
            )
        self._names = None if names is None else tuple(names)

    @property
    def dim(self) -> int:
        return self._table.rows.shape[1]

    def rows(
        self, texts: Sequence[str], normalize: bool, device: torch.device | str | None
    ) -> Tensor:
        table = self._table
        if table.names is None:
            if len(texts) != len(table.rows):
                raise ValueError(
                    f'{self.path} has {len(table.rows)} rows without names, but '
                    f'{len(texts)} names were asked for: {as_list(texts)}. Name the '
                    'rows with class_embeddings.source.names, or in '
                    f'{self.path.with_suffix(".json").name} beside the file.'
                )
            rows = table.rows
        else:
            rows = table.rows[self._indices(texts, table.names)]
        return F.normalize(rows, dim=-1) if normalize else rows

    def provenance(self) -> dict[str, str]:
        return {'source': 'tensor', 'file': self.path.name}

    def _indices(self, texts: Sequence[str], names: tuple[str, ...]) -> list[int]:
        place = {name.casefold(): index for index, name in enumerate(names)}
        missing = [text for text in texts if text.casefold() not in place]
        if missing:
            hints = ''.join(did_you_mean(text, names, limit=1) for text in missing[:3])
            raise ValueError(
                f'{self.path} has no rows for {as_list(missing)}.{hints} It has rows '
                f'for {len(names)} names.'
            )
        return [place[text.casefold()] for text in texts]

    @cached_property
    def _table(self) -> _Table:
        require_file(self.path, 'class embeddings')
        rows, inner_names = _read(self.path)
        if rows.ndim != 2 or not rows.is_floating_point() or 0 in rows.shape:
            raise ValueError(
                f'{self.path} must hold one row of numbers for each class, and holds '
                f'{tuple(rows.shape)} of {rows.dtype}'
            )
        names = self._names or self._sidecar() or inner_names
        if names is not None and len(names) != len(rows):
            raise ValueError(
                f'{self.path} has {len(rows)} rows, but {len(names)} names: '
                f'{as_list(names)}'
            )
        repeated = duplicates(name.casefold() for name in names or ())
        if repeated:
            raise ValueError(f'{self.path} has several rows for {as_list(repeated)}')
        return _Table(rows.float(), names)

    def _sidecar(self) -> tuple[str, ...] | None:
        path = self.path.with_suffix('.json')
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f'{path} is no JSON: {error}') from error
        names = content.get(_NAMES) if isinstance(content, dict) else content
        if not _is_names(names):
            raise ValueError(
                f'{path} must hold the names of the rows: a list of texts, or an '
                f'object with {_NAMES!r}'
            )
        return tuple(names)


def _read(path: Path) -> tuple[Tensor, tuple[str, ...] | None]:
    if path.suffix == '.npy':
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f'{path} is no plain .npy array: {error}') from error
        if array.dtype.kind not in 'fiu':
            raise ValueError(f'{path} holds {array.dtype}, not numbers')
        return torch.from_numpy(np.asarray(array, dtype=np.float32)), None
    content = safe_load_object(path)
    if isinstance(content, Tensor):
        return content, None
    if isinstance(content, Mapping):
        tensors = [value for value in content.values() if isinstance(value, Tensor)]
        rows = content.get(_TENSOR, tensors[0] if len(tensors) == 1 else None)
        names = content.get(_NAMES)
        if isinstance(rows, Tensor):
            return rows, tuple(names) if _is_names(names) else None
    raise ValueError(
        f'{path} must hold one tensor, or a dict with the rows under {_TENSOR!r}'
    )


def _is_names(value: object) -> TypeGuard[Sequence[str]]:
    return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
