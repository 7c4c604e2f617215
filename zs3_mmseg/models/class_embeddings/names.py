"""Class names as users write them: ``'sofa|couch'`` is one class with two names."""

from __future__ import annotations

from collections.abc import Sequence

from zs3_mmseg.utils.names import duplicates

_SEPARATOR = '|'


def synonyms_of(name: str) -> tuple[str, ...]:
    """Return the names of a class: ``'sofa | couch' -> ('sofa', 'couch')``.

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


def display_name(name: str) -> str:
    """Return how a class is called in legends and tables: its first synonym."""
    return synonyms_of(name)[0]


def split_names(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Split class names into one text for each query.

    Args:
        names: one entry for each class.

    Returns:
        The ``Q`` texts, and the class of each, which is non-decreasing.

    Raises:
        ValueError: if there is no name, an empty name, or a name that occurs twice,
            in upper or lower case: text towers see no difference.
    """
    if isinstance(names, str) or not names:
        raise ValueError(f'expected a list of class names, got {names!r}')
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise ValueError(f'class names must be strings, got {wrong}')
    texts: list[str] = []
    classes: list[int] = []
    for index, name in enumerate(names):
        synonyms = synonyms_of(name)
        texts += synonyms
        classes += [index] * len(synonyms)
    repeated = duplicates(text.casefold() for text in texts)
    if repeated:
        raise ValueError(
            f'these class names or synonyms occur more than once: {", ".join(repeated)}'
        )
    return texts, classes
