"""Class embeddings from word vectors: word2vec, GloVe or fastText files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .sources import EmbeddingSource, as_list, require_file

_FLOAT = np.dtype('<f4')
# Longer than any token: a file without spaces is none of ours.
_LONGEST_WORD = 4096


class WordVectorSource(EmbeddingSource):
    """Vectors of words from a file.

    A name is lower-cased and split at spaces, ``_`` and ``-``. Its row is the mean of
    the vectors of those of its words that are in the file.

    Args:
        path: a text file with a word and its numbers on each line (GloVe; word2vec and
            fastText with a line ``words dimension`` first), or word2vec's binary form.
        binary: whether the file is binary; None: if its name ends in ``.bin``.
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
            raise ValueError(
                f'{self.path} has vectors for no word of these names: '
                f'{as_list(absent)}. Give them another name by a synonym that is in '
                "the file, e.g. 'tv' for 'tvmonitor'."
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
        """Return the dimension and the number of words, if the file tells it.

        The stream is left at the first word.
        """
        first = stream.readline()
        fields = first.split()
        if len(fields) == 2 and all(field.isdigit() for field in fields):
            return int(fields[1]), int(fields[0])
        if self.binary or len(fields) < 2:
            raise ValueError(
                f'{self.path} does not begin like a word2vec file (the number of '
                'words, the dimension)'
                + (' or a line of word vectors' * (not self.binary))
            )
        stream.seek(0)
        return len(fields) - 1, None

    def _find(self, wanted: set[str]) -> dict[str, np.ndarray]:
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
                if len(found) == len(wanted):
                    break
        return found

    def _text_entries(
        self, stream: BinaryIO, dim: int, wanted: set[str]
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
        self, stream: BinaryIO, dim: int, count: int, wanted: set[str]
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
