"""A small byte-pair vocabulary for open_clip's ``SimpleTokenizer``.

The merges are learned from a list of words until each is a single token; any other
word falls apart into smaller tokens, in the end into bytes, so nothing is unknown.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

Pair = tuple[str, str]

#: SimpleTokenizer skips the first line of a merges file.
_HEADER = '#version: 0.2'
_WORD_END = '</w>'


def _merged(symbols: Sequence[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def learn_merges(words: Iterable[str]) -> list[Pair]:
    """Learn merges that turn each of ``words`` into one token.

    The most frequent pair is merged first, the alphabetically first of equals
    (Sennrich et al. 2016, algorithm 1).

    Args:
        words: lower-case ASCII words, without spaces.

    Returns:
        The merges in the order in which they apply.

    Raises:
        ValueError: if a word holds anything but the letters a to z.
    """
    spelled = []
    for word in sorted(set(words)):
        if not (word.isascii() and word.isalpha() and word.islower()):
            raise ValueError(f'expected words of the letters a to z, got {word!r}')
        spelled.append([*word[:-1], word[-1] + _WORD_END])
    merges: list[Pair] = []
    while True:
        pairs = Counter(pair for symbols in spelled for pair in pairwise(symbols))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_merged(symbols, best) for symbols in spelled]


def merges_file(merges: Sequence[Pair]) -> bytes:
    """Content of the ``.txt.gz`` that ``SimpleTokenizer(bpe_path=...)`` reads.

    No line break at the end: the tokenizer would take the empty line for a merge.
    """
    lines = [_HEADER, *(' '.join(pair) for pair in merges)]
    return gzip.compress('\n'.join(lines).encode(), mtime=0)


def vocabulary_size(merges: Sequence[Pair]) -> int:
    """256 bytes, each also as a word end, the merges, start and end of text."""
    return 2 * 256 + len(merges) + 2
