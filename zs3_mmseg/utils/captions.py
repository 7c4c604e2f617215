"""Words of a list in captions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_WORD = re.compile(r'[^\W_]+')


class WordFinder:
    """Finds the words and phrases of a list in captions.

    Upper case, hyphens and punctuation do not count, and the regular plural of a word
    is that word: ``'two Traffic-lights.'`` holds ``'traffic light'``. Where one phrase
    is a part of another one, the longer is found.

    Args:
        words: words or phrases.

    Raises:
        ValueError: if one of them has no letter or digit.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._places: dict[tuple[str, ...], int] = {}
        for place, word in enumerate(words):
            parts = _parts(word)
            if not parts:
                raise ValueError(f'{word!r} is no word: it has no letter or digit')
            self._places.setdefault(parts, place)
        self._longest = max(map(len, self._places), default=0)

    def find(self, caption: str) -> list[int]:
        """Return the places in the list of what a caption holds, each once."""
        parts, start = _parts(caption), 0
        found: dict[int, None] = {}
        while start < len(parts):
            length, place = self._longest_at(parts, start)
            if place is not None:
                found[place] = None
            start += length
        return list(found)

    def _longest_at(self, parts: Sequence[str], start: int) -> tuple[int, int | None]:
        """Return how many words the phrase at a place has, and which it is."""
        for length in range(min(self._longest, len(parts) - start), 0, -1):
            *before, last = parts[start : start + length]
            for form in _singulars(last):
                place = self._places.get((*before, form))
                if place is not None:
                    return length, place
        return 1, None


def _parts(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold()))


def _singulars(word: str) -> Iterator[str]:
    """Yield a word, and what it may be the regular plural of."""
    yield word
    if word.endswith('ies'):
        yield f'{word[:-3]}y'
    if word.endswith('es'):
        yield word[:-2]
    if word.endswith('s'):
        yield word[:-1]
