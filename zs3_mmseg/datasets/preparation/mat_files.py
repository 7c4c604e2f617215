"""Is a MATLAB file sound enough for scipy, whose compiled reader trusts its numbers?

Version 5 of the format (MathWorks, "MAT-File Format") is a tree of elements: a tag with
a type and a size, then so many bytes. A type that does not exist takes scipy's reader
out of its table, and the process with it.
"""

from __future__ import annotations

import math
import struct
import zlib

#: What a file may unpack to, in bytes.
MAX_UNPACKED = 2**28
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
# Types of numbers, and those of letters.
_NUMBERS = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_LETTERS = {**_NUMBERS, 16: 1, 17: 2, 18: 4}
_INT8, _INT32, _UINT32 = 1, 5, 6
_CELL, _STRUCT, _CHAR, _SPARSE = 1, 2, 4, 5
_NUMERIC = range(6, 16)
_DEEPEST = 16


def require_sound_mat(data: bytes) -> None:
    """Check the tree of a MATLAB file of version 5; others are left to scipy.

    Raises:
        ValueError: saying what does not fit.
    """
    if len(data) < _HEADER or data[126:128] not in (b'IM', b'MI'):
        return
    order = '<' if data[126:128] == b'IM' else '>'
    (version,) = struct.unpack(f'{order}H', data[124:126])
    if version >> 8 == 1:
        _Tree(order).check_file(data[_HEADER:])


class _Tree:
    """The elements of a file with one order of bytes."""

    def __init__(self, order: str) -> None:
        self._order = order
        self._left = MAX_UNPACKED

    def check_file(self, data: bytes) -> None:
        for kind, part in self._elements(data):
            if kind == _COMPRESSED:
                unpacker = zlib.decompressobj()
                part = unpacker.decompress(part, self._left)
                self._left -= len(part)
                if unpacker.unconsumed_tail or not self._left:
                    raise ValueError(f'it unpacks to more than {MAX_UNPACKED:,} bytes')
                self._require_matrices(part, 0)
            elif kind == _MATRIX:
                self._check_matrix(part, 0)
            else:
                raise ValueError(f'a variable of the type {kind}')

    def _elements(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return type and content of the elements that lie side by side in ``data``."""
        found, place = [], 0
        while place < len(data):
            if len(data) - place < 8:
                raise ValueError('it is cut off within a tag')
            kind, size = struct.unpack_from(f'{self._order}II', data, place)
            start = place + 8
            if kind >> 16:  # up to four bytes lie in the tag itself
                kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
                if size > 4:
                    raise ValueError(f'a short element of {size} bytes')
            if start + size > len(data):
                raise ValueError(f'an element of {size:,} bytes that is not whole')
            found.append((kind, data[start : start + size]))
            padding = 0 if kind == _COMPRESSED else -size % 8
            place = place + 8 if start == place + 4 else start + size + padding
        return found

    def _require_matrices(self, data: bytes, depth: int) -> None:
        for kind, part in self._elements(data):
            if kind != _MATRIX:
                raise ValueError(f'an element of the type {kind} in place of a matrix')
            self._check_matrix(part, depth)

    def _check_matrix(self, data: bytes, depth: int) -> None:
        if not data:
            return  # an empty cell
        if depth > _DEEPEST:
            raise ValueError(f'matrices within more than {_DEEPEST} others')
        parts = self._elements(data)
        (flags_kind, flags), *rest = parts
        if flags_kind != _UINT32 or len(flags) != 8 or len(rest) < 2:
            raise ValueError('a matrix without flags, dimensions and name')
        (dims_kind, dims), (name_kind, _), *values = rest
        if dims_kind != _INT32 or len(dims) < 8 or len(dims) % 4 or name_kind != _INT8:
            raise ValueError('a matrix without dimensions or name')
        sizes = struct.unpack(f'{self._order}{len(dims) // 4}i', dims)
        if min(sizes) < 0 or math.prod(sizes) > MAX_UNPACKED:
            raise ValueError(f'a matrix of {" x ".join(map(str, sizes))}')
        kind = struct.unpack(f'{self._order}I', flags[:4])[0] & 0xFF
        if kind == _STRUCT:
            values = self._without_fields(values)
        if kind in (_CELL, _STRUCT):
            for part_kind, part in values:
                if part_kind != _MATRIX:
                    raise ValueError(f'a cell of the type {part_kind}')
                self._check_matrix(part, depth + 1)
            return
        if kind not in (_CHAR, _SPARSE, *_NUMERIC):
            raise ValueError(f'a matrix of the class {kind}, which holds no labels')
        self._check_values(values, sizes, kind)

    def _check_values(
        self, values: list[tuple[int, bytes]], sizes: tuple[int, ...], kind: int
    ) -> None:
        known = _LETTERS if kind == _CHAR else _NUMBERS
        for part_kind, part in values:
            if part_kind not in known or len(part) % known[part_kind]:
                raise ValueError(
                    f'{len(part)} bytes of numbers of the type {part_kind}'
                )
            if kind in _NUMERIC and len(part) != known[part_kind] * math.prod(sizes):
                raise ValueError(
                    f'{len(part):,} bytes for a matrix of {" x ".join(map(str, sizes))}'
                )
        least = {_CHAR: 0, _SPARSE: 3}.get(kind, 1)
        if not least <= len(values) <= least + 1:
            raise ValueError(f'a matrix of {len(values)} parts')

    def _without_fields(
        self, values: list[tuple[int, bytes]]
    ) -> list[tuple[int, bytes]]:
        """Return the values of a struct; the names of its fields come first."""
        if len(values) < 2 or values[0][0] != _INT32 or values[1][0] != _INT8:
            raise ValueError('a struct without fields')
        (_, length), (_, names), *rest = values
        if len(length) != 4:
            raise ValueError('a struct without the length of its fields')
        (size,) = struct.unpack(f'{self._order}i', length)
        if size < 1 or len(names) % size:
            raise ValueError('a struct whose fields have no names')
        return rest
