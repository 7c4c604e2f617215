"""The classes that a segmentor can name at the moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zs3_mmseg.datasets.splits import ZeroShotSplit, find_name
from zs3_mmseg.models.class_embeddings import display_name, split_names, synonyms_of
from zs3_mmseg.utils.names import did_you_mean
from zs3_mmseg.utils.palette import default_palette

Palette = list[list[int]]


@dataclass(frozen=True)
class Vocabulary:
    """Names, which of them are seen, and their colours.

    Attributes:
        names: one name per class; ``'sofa|couch'`` is one class with two names.
        seen: for each class whether it had labels in training.
        palette: an RGB colour for each class.
    """

    names: tuple[str, ...]
    seen: tuple[bool, ...]
    palette: Palette

    @property
    def display_names(self) -> tuple[str, ...]:
        """What classes are called in legends: their first synonym."""
        return tuple(display_name(name) for name in self.names)


def split_vocabulary(split: ZeroShotSplit, setting: str) -> Vocabulary:
    """Return the vocabulary of a split.

    In the supervised setting every class has labels in training, so all are seen.
    """
    supervised = setting == 'supervised'
    return Vocabulary(
        names=split.classes,
        seen=tuple(supervised or seen for seen in split.seen_mask()),
        palette=default_palette(len(split.classes)),
    )


def new_vocabulary(
    names: Sequence[str], unseen: Sequence[str] | None, trained: Vocabulary
) -> Vocabulary:
    """Make a vocabulary of a user's names.

    Args:
        names: the new names.
        unseen: those among them that are unseen. None: all but the ones that mean a
            class that was seen in training, in any spelling the alias table knows.
        trained: vocabulary of the training.

    Raises:
        ValueError: if names are empty or occur twice, also as synonyms, or if
            ``unseen`` holds anything else than some of the names.
    """
    # mmengine's config files and numpy may bring other string types and sequences.
    texts = names if isinstance(names, str) else [*names]
    split_names(texts)  # raises what is wrong with them
    listed = tuple(name.strip() for name in texts)
    if unseen is None:
        seen = tuple(_is_seen(name, trained) for name in listed)
    else:
        seen = _all_but(unseen, listed)
    return Vocabulary(listed, seen, _colours(listed, trained))


def _is_seen(name: str, trained: Vocabulary) -> bool:
    matches = (find_name(word, trained.names) for word in synonyms_of(name))
    return any(index is not None and trained.seen[index] for index in matches)


def _all_but(unseen: Sequence[str], names: tuple[str, ...]) -> tuple[bool, ...]:
    if isinstance(unseen, str):
        raise ValueError(f'unseen must be a list of names, got the string {unseen!r}')
    for name in unseen:
        if name not in names:
            raise ValueError(
                f'unseen name {name!r} is none of the classes.'
                f'{did_you_mean(name, names)}'
            )
    return tuple(name not in unseen for name in names)


def _colours(names: tuple[str, ...], trained: Vocabulary) -> Palette:
    """Return the trained colour of trained names and fresh ones for the others."""
    known = dict(zip(trained.names, trained.palette, strict=True))
    fresh = iter(default_palette(len(names), avoid=trained.palette))
    return [list(known[name]) if name in known else next(fresh) for name in names]
