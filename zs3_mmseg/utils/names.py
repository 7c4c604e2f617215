"""Names: files of them, synonyms in one, and what messages say about wrong ones."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

_Choice = TypeVar('_Choice')

_SEPARATOR = '|'
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def synonyms_of(name: str) -> tuple[str, ...]:
    """Return the names of a class: ``'sofa | couch' -> ('sofa', 'couch')``.

    Args:
        name: a class name; spaces around and several between words do not count.

    Raises:
        ValueError: if the name, or one of its synonyms, is empty.
    """
    synonyms = tuple(' '.join(part.split()) for part in name.split(_SEPARATOR))
    if not all(synonyms):
        raise ValueError(
            f'the class name {name!r} is empty or holds an empty synonym '
            f'(synonyms are separated by {_SEPARATOR!r})'
        )
    return synonyms


def as_list(
    texts: Sequence[str], shown: int = 10, spelling: Callable[[str], str] = repr
) -> str:
    """Return texts as they stand in messages: a few, and how many there are."""
    listed = ', '.join(map(spelling, texts[:shown]))
    more = len(texts) - shown
    return listed + (f' and {more} more ({len(texts)} in all)' if more > 0 else '')


def cut_file_name(name: str, longest: int = 200) -> str:
    """Cut a name to so many bytes that a file name has room for suffixes, too."""
    raw = os.fsencode(name)
    if len(raw) <= longest:
        return name
    return raw[:longest].decode(sys.getfilesystemencoding(), 'ignore')


def did_you_mean(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return ``' Did you mean ...?'`` with the known names closest to ``name``.

    The string is empty when nothing is close, so that it can always be appended.
    """
    by_lower = {option.lower(): option for option in known}
    close = get_close_matches(name.lower(), list(by_lower), n=limit, cutoff=0.5)
    if not close:
        return ''
    return f' Did you mean {" or ".join(repr(by_lower[match]) for match in close)}?'


def type_name(kind: object) -> str:
    """Return the plain name of a ``type`` in a config: of a class, or without scope.

    ``'zs3_mmseg.ZegCLIPHead'`` and the class itself are ``'ZegCLIPHead'``.
    """
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def duplicates(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once, each listed once, in order."""
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for name in names:
        if name in seen:
            repeated[name] = None
        seen.add(name)
    return list(repeated)


def choose(name: str, value: _Choice, allowed: Iterable[_Choice]) -> _Choice:
    """Return ``value`` if it is allowed, else raise ValueError naming the option."""
    known = tuple(allowed)
    if value not in known:
        hint = ''
        if isinstance(value, str):
            hint = did_you_mean(
                value, (word for word in known if isinstance(word, str))
            )
        raise ValueError(
            f'{name} must be one of {", ".join(map(repr, known))}, not {value!r}.{hint}'
        )
    return value


def read_text(path: Path) -> str:
    """Read a text file that a user wrote, in UTF-8 or, with its mark, in UTF-16.

    Raises:
        ValueError: naming file and line, if it has another encoding.
    """
    data = path.read_bytes()
    if data.startswith(_UTF16):  # what Windows calls Unicode
        try:
            return data.decode('utf-16')
        except UnicodeDecodeError as error:
            raise _not_utf8(path, 1, f'nor whole UTF-16, {error.reason}') from error
    place = data.find(b'\0')
    if place >= 0:
        line = data[:place].count(b'\n') + 1
        raise _not_utf8(path, line, 'it holds zeros, as UTF-16 does')
    try:
        # A byte order mark, as some editors write, is no part of the first name.
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b'\n') + 1
        raise _not_utf8(path, line, error.reason) from error


def read_json(path: Path, pairs: Callable[[list], object] | None = None) -> Any:
    """Read a JSON file that a user wrote; objects become ``pairs`` of theirs, or dicts.

    Raises:
        ValueError: naming file and, where there is one, line.
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise ValueError(
            f'{path}, line {error.lineno}: no readable JSON ({error.msg})'
        ) from error
    except (RecursionError, ValueError) as error:  # a number of 5,000 digits, say
        raise ValueError(f'{path}: no readable JSON ({error})') from error


def _not_utf8(path: Path, line: int, reason: str) -> ValueError:
    return ValueError(
        f'{path}, line {line}: no UTF-8 text ({reason}); save the file with the '
        'encoding UTF-8'
    )
