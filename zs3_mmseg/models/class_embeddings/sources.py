"""Where rows come from: what every source promises, and the two that read files.

A file holds rows of classes (:class:`TensorSource`) or vectors of words
(:class:`WordVectorSource`: word2vec, GloVe, fastText). The text tower is a source of
its own, see :mod:`.clip_text`.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO, TypeGuard
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmengine.logging import print_log

from zs3_mmseg.utils.checkpoint import safe_load_object
from zs3_mmseg.utils.names import as_list, did_you_mean, duplicates, read_json
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

    @property
    def prompts_per_row(self) -> int:
        """How many rows there are for each text, one after the other."""
        return 1

    @abstractmethod
    def rows(
        self, texts: Sequence[str], normalize: bool, device: torch.device | str | None
    ) -> Tensor:
        """Return the rows of each text: ``(len(texts) * P, D)`` float32 on the CPU."""

    def token_features(
        self, texts: Sequence[str], device: torch.device | str | None
    ) -> Tensor:
        """Return features of every token, ``(len(texts), L, W)`` float32 on the CPU.

        A source that knows whole texts only raises.
        """
        raise ValueError(
            'class_embeddings.token_features=True needs outputs of single tokens, '
            "which only sources of type 'clip_text' and 'sam3_text' have"
        )

    def unknown_words(self, texts: Sequence[str]) -> list[str]:
        """Return words of texts whose rows mean nothing, as far as the source knows."""
        return []

    @abstractmethod
    def provenance(self) -> dict[str, str]:
        """Return where the rows come from, in plain strings."""


def require_file(path: Path, what: str) -> None:
    """Raise if the file of a source is missing, saying which key to change."""
    if path.is_file():
        return
    origin = origin_of_file(path.name)
    raise FileNotFoundError(
        f'the {what} {path} of class_embeddings.source.path do not exist'
        + (f'; get them: {origin}' if origin else '')
    )


_NPY_ERRORS = (
    *(ValueError, OSError, EOFError, SyntaxError, TypeError, LookupError),
    *(ArithmeticError, MemoryError, RecursionError, TokenError, BadZipFile),
)
_SUFFIXES = ('.npy', '.pt', '.pth', '.safetensors')
_TENSOR = 'embeddings'
_NAMES = 'names'


class TensorSource(EmbeddingSource):
    """Rows of a ``.npy``, ``.pt``, ``.pth`` or ``.safetensors`` file.

    The names of the rows come from ``names``, from a JSON beside the file
    (``FILE.json``: a list, or an object with ``names``), or from ``names`` within the
    file. Without any, the file must have as many rows as there are texts, in their
    order. A file with several tensors has the rows under ``embeddings``. A file of
    ``(R, P, D)`` has ``P = prompts_per_row`` rows for each name, which are kept apart.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        names: Sequence[str] | None = None,
        prompts_per_row: int = 1,
    ) -> None:
        self.path = Path(path).expanduser()
        if self.path.suffix not in _SUFFIXES:
            raise ValueError(
                f'class_embeddings.source.path={str(path)!r} must end in '
                f'{", ".join(_SUFFIXES)}'
            )
        self._names = None if names is None else tuple(names)
        self._prompts = prompts_per_row

    @property
    def dim(self) -> int:
        return self._table[0].shape[2]

    @property
    def prompts_per_row(self) -> int:
        return self._prompts

    def rows(
        self, texts: Sequence[str], normalize: bool, device: torch.device | str | None
    ) -> Tensor:
        rows, names = self._table
        if names is None:
            if len(texts) != len(rows):
                raise ValueError(
                    f'{self.path} has {len(rows)} rows without names, but '
                    f'{len(texts)} names were asked for: {as_list(texts)}. Name the '
                    'rows with class_embeddings.source.names, or in '
                    f'{self.path.with_suffix(".json").name} beside the file.'
                )
        else:
            rows = rows[self._indices(texts, names)]
        rows = rows.flatten(0, 1)
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
    def _table(self) -> tuple[Tensor, tuple[str, ...] | None]:
        """The rows of the file ``(R, P, D)`` and their names, if they have any."""
        require_file(self.path, 'class embeddings')
        rows, inner_names = _read(self.path)
        if rows.ndim == 3 and rows.shape[1] != self._prompts:
            raise ValueError(
                f'{self.path} has {rows.shape[1]} rows for each class: set '
                f'class_embeddings.source.prompts_per_row={rows.shape[1]}, for a head '
                'that reads several'
            )
        if rows.ndim == 2 and self._prompts == 1:
            rows = rows.unsqueeze(1)
        if rows.ndim != 3 or not rows.is_floating_point() or 0 in rows.shape:
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
        return rows.float(), names

    def _sidecar(self) -> tuple[str, ...] | None:
        path = self.path.with_suffix('.json')
        if not path.is_file():
            return None
        content = read_json(path)
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
            # Mapped: a header may claim any size, and only what is there is read.
            array = np.load(path, mmap_mode='r', allow_pickle=False)
        except _NPY_ERRORS as error:
            raise ValueError(f'{path} is no plain .npy array: {error}') from error
        if not isinstance(array, np.ndarray):
            raise ValueError(
                f'{path} is no plain .npy array, but an archive of several'
            )
        if array.dtype.kind not in 'fiu':
            raise ValueError(f'{path} holds {array.dtype}, not numbers')
        return torch.from_numpy(np.array(array, dtype=np.float32)), None
    content = safe_load_object(path)
    if isinstance(content, Tensor):
        _require_plain(content, path)
        return content, None
    if isinstance(content, Mapping):
        tensors = [value for value in content.values() if isinstance(value, Tensor)]
        rows = content.get(_TENSOR, tensors[0] if len(tensors) == 1 else None)
        names = content.get(_NAMES)
        if isinstance(rows, Tensor):
            _require_plain(rows, path)
            return rows, tuple(names) if _is_names(names) else None
    raise ValueError(
        f'{path} must hold one tensor, or a dict with the rows under {_TENSOR!r}'
    )


def _require_plain(rows: Tensor, path: Path) -> None:
    """Refuse tensors without numbers of their own, which grow when they are copied."""
    stored = rows.layout == torch.strided and not rows.is_meta
    if not stored or rows.nbytes > rows.untyped_storage().nbytes():
        raise ValueError(
            f'{path} holds {tuple(rows.shape)} of {rows.dtype} that are not stored one '
            'by one'
        )


def _is_names(value: object) -> TypeGuard[Sequence[str]]:
    return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)


_FLOAT = np.dtype('<f4')
# Longer than any token: a file without spaces is none of ours.
_LONGEST_WORD = 4096
#: Most columns that word vectors may have: a header may claim any number.
MAX_COLUMNS = 2**16


class _Near:
    """Words of the same first letter and about the same length as one."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __contains__(self, other: object) -> bool:
        if not isinstance(other, str) or abs(len(other) - len(self.word)) > 2:
            return False
        return other[:1].lower() == self.word[:1]


class WordVectorSource(EmbeddingSource):
    """Vectors of words from a file.

    A name is lower-cased and split at spaces, ``_`` and ``-``. Its row is the mean of
    the vectors of those of its words that are in the file.
    """

    def __init__(self, path: str | Path, *, binary: bool | None = None) -> None:
        self.path = Path(path).expanduser()
        self.binary = self.path.suffix == '.bin' if binary is None else binary

    @property
    def dim(self) -> int:
        with self._open() as stream:
            return self._header(stream)[0]

    def rows(
        self, texts: Sequence[str], normalize: bool, device: torch.device | str | None
    ) -> Tensor:
        words = {text: words_of(text) for text in texts}
        vectors = self._find({word for several in words.values() for word in several})
        absent = [
            text for text in texts if not any(word in vectors for word in words[text])
        ]
        if absent:
            hints = ''.join(
                did_you_mean(word, self._find(_Near(word)), limit=2)
                for text in absent[:3]
                for word in words[text]
            )
            raise ValueError(
                f'{self.path} has vectors for no word of these names: '
                f'{as_list(absent)}.{hints} Give them another name by a synonym that '
                "is in the file, e.g. 'tv' for 'tvmonitor'."
            )
        unknown = [word for several in words.values() for word in several]
        unknown = [word for word in dict.fromkeys(unknown) if word not in vectors]
        if unknown:
            print_log(
                f'{self.path} has no vectors for these words, and the rows of their '
                f'names are those of the other words: {as_list(unknown)}',
                logger='current',
                level=logging.WARNING,
            )
        means = [
            np.mean([vectors[word] for word in words[text] if word in vectors], axis=0)
            for text in texts
        ]
        rows = torch.from_numpy(np.stack(means).astype(np.float32))
        return F.normalize(rows, dim=-1) if normalize else rows

    def provenance(self) -> dict[str, str]:
        return {'source': 'vectors', 'file': self.path.name}

    def _open(self) -> BinaryIO:
        require_file(self.path, 'word vectors')
        return self.path.open('rb')

    def _header(self, stream: BinaryIO) -> tuple[int, int | None]:
        """Return the dimension, and the number of words if the file tells it.

        The stream is left at the first word.
        """
        first = stream.readline()
        fields = first.split()
        if len(fields) == 2 and all(field.isdigit() for field in fields):
            # Python reads no number of more than 4,300 digits.
            count, columns = (int(field[:20]) for field in fields)
            self._require_columns(columns)
            return columns, count
        if self.binary or len(fields) < 2:
            raise ValueError(
                f'{self.path} does not begin like a word2vec file (the number of '
                'words, the dimension)'
                + (' or a line of word vectors' * (not self.binary))
            )
        stream.seek(0)
        self._require_columns(len(fields) - 1)
        return len(fields) - 1, None

    def _require_columns(self, columns: int) -> None:
        if not 0 < columns <= MAX_COLUMNS:
            raise ValueError(
                f'{self.path} claims vectors of {columns:,} numbers; expected 1 to '
                f'{MAX_COLUMNS:,}'
            )

    def _find(self, wanted: set[str] | _Near) -> dict[str, np.ndarray]:
        """Return the vectors of the wanted words; the first one of a word counts."""
        found: dict[str, np.ndarray] = {}
        with self._open() as stream:
            dim, count = self._header(stream)
            if self.binary:
                entries = self._binary_entries(stream, dim, count or 0, wanted)
            else:
                entries = self._text_entries(stream, dim, wanted)
            for word, vector in entries:
                found.setdefault(word, vector)
                if isinstance(wanted, set) and len(found) == len(wanted):
                    break
        return found

    def _text_entries(
        self, stream: BinaryIO, dim: int, wanted: Container[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        for number, line in enumerate(stream, start=1):
            head, _, tail = line.partition(b' ')
            word = head.decode('utf-8', errors='replace')
            if word not in wanted:
                continue
            fields = tail.split()
            if len(fields) > dim:
                continue  # GloVe has a few tokens with spaces in them
            try:
                vector = np.array(fields, dtype=np.float32)
            except ValueError as error:
                raise ValueError(
                    f'{self.path}: entry {number} ({word!r}) holds no numbers: {error}'
                ) from error
            if len(vector) != dim:
                raise ValueError(
                    f'{self.path}: entry {number} ({word!r}) has {len(vector)} '
                    f'numbers, expected {dim}'
                )
            yield word, vector

    def _binary_entries(
        self, stream: BinaryIO, dim: int, count: int, wanted: Container[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        size = dim * _FLOAT.itemsize
        for number in range(1, count + 1):
            word = _binary_word(stream)
            raw = stream.read(size)
            if word is None or len(raw) != size:
                raise ValueError(
                    f'{self.path} is cut off or no word2vec file: it promises {count} '
                    f'words and entry {number} is not whole'
                )
            if word in wanted:
                yield word, np.frombuffer(raw, dtype=_FLOAT).astype(np.float32)


def words_of(name: str) -> list[str]:
    """Return the words of a class name: ``'Traffic_light' -> ['traffic', 'light']``."""
    return [word for word in re.split(r'[\s_-]+', name.lower()) if word]


def _binary_word(stream: BinaryIO) -> str | None:
    """Read up to the next space; some writers end each entry with a line break."""
    raw = bytearray()
    while len(raw) < _LONGEST_WORD:
        char = stream.read(1)
        if not char:
            return None
        if char == b' ':
            return bytes(raw).lstrip(b'\n').decode('utf-8', errors='replace')
        raw += char
    return None


class ConcatSource(EmbeddingSource):
    """Rows of several sources side by side, as fastText and word2vec in CaGNet.

    ``parts`` are configs of sources. With ``normalize_parts`` each part of a row is
    scaled to length 1 by itself; otherwise long ones outweigh the others.
    """

    def __init__(
        self, parts: Sequence[EmbeddingSource], *, normalize_parts: bool = False
    ) -> None:
        if len(parts) < 2:
            raise ValueError('expected two parts or more')
        several = [part for part in parts if part.prompts_per_row > 1]
        if several:
            raise ValueError(
                'a part keeps prompts apart (reduce_templates=False), and rows of '
                'several prompts cannot be put side by side'
            )
        self.parts = tuple(parts)
        self.normalize_parts = normalize_parts

    @property
    def dim(self) -> int:
        return sum(part.dim for part in self.parts)

    def rows(
        self, texts: Sequence[str], normalize: bool, device: torch.device | str | None
    ) -> Tensor:
        several = [
            part.rows(texts, self.normalize_parts, device) for part in self.parts
        ]
        rows = torch.cat(several, dim=1)
        return F.normalize(rows, dim=-1) if normalize else rows

    def provenance(self) -> dict[str, str]:
        parts = [part.provenance() for part in self.parts]
        return {
            'source': 'concat',
            'parts': '; '.join(', '.join(part.values()) for part in parts),
            'normalize_parts': str(self.normalize_parts),
        }
