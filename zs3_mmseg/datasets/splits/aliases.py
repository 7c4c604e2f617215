"""One table for the spellings that code bases use for the same class."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Each line is one class; the first spelling is the canonical one. 'table' is here
# because Pascal-Context and CaGNet mean VOC's dining table by it. COCO-Stuff has both
# 'dining table' and 'table': there each is found under its own name first.
_GROUPS = (
    ('aeroplane', 'airplane'),
    ('motorbike', 'motorcycle'),
    ('pottedplant', 'potted plant'),
    ('diningtable', 'dining table', 'table'),
    ('sofa', 'couch'),
    ('tvmonitor', 'tv', 'tv monitor', 'television'),
    ('hair drier', 'hair dryer'),
    ('donut', 'doughnut'),
    ('cell phone', 'mobile phone'),
    ('playingfield', 'playing field'),
)


def _plain(name: str) -> str:
    """Drop what never tells two classes apart: case, spaces, ``_`` and ``-``."""
    return re.sub(r'[\s_-]+', '', name).lower()


_CANONICAL = {_plain(name): group[0] for group in _GROUPS for name in group}


def canonical(name: str) -> str:
    """Return the spelling that stands for all spellings of a class.

    A name without aliases is returned as it is, but for its case, spaces, ``_`` and
    ``-``: ``canonical('TV')`` and ``canonical('tv_monitor')`` are ``'tvmonitor'``.
    """
    plain = _plain(name)
    return _plain(_CANONICAL.get(plain, plain))


def _synonyms(name: str) -> list[str]:
    """Split ``'sofa|couch'`` into the words that mean one class."""
    return [word.strip() for word in name.split('|')]


def find_name(name: str, candidates: Sequence[str]) -> int | None:
    """Return the position of the candidate that means the same class as ``name``.

    The closest spelling wins: the very same name, then one that differs in case,
    spaces, ``_`` or ``-`` only, then an alias. ``'a|b'`` means any of its synonyms.

    Args:
        name: a class name.
        candidates: the names of a data set or a split.

    Returns:
        The index into ``candidates``, or None if nothing matches.

    Raises:
        ValueError: if several candidates match equally well.
    """
    if name in candidates:
        return list(candidates).index(name)
    for spelling in (str, _plain, canonical):
        wanted = {spelling(word) for word in _synonyms(name)}
        found = [
            position
            for position, candidate in enumerate(candidates)
            if wanted & {spelling(word) for word in _synonyms(candidate)}
        ]
        if len(found) > 1:
            listed = ', '.join(repr(candidates[position]) for position in found)
            raise ValueError(f'class {name!r} could be any of {listed}: rename it')
        if found:
            return found[0]
    return None
