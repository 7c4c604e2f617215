"""What a split is, and what makes one wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from zs3_mmseg.utils.cache import content_hash
from zs3_mmseg.utils.labels import WIDE
from zs3_mmseg.utils.names import did_you_mean, synonyms_of

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


class NameFinder:
    """Finds, among the names of a data set or a split, the one that means a class.

    The closest spelling wins: the very same name, then one that differs in case,
    spaces, ``_`` or ``-`` only, then an alias. ``'a|b'`` means any of its synonyms.

    Args:
        candidates: the names, of which blank ones are never found but as they are: a
            data set may leave the name of a label that never occurs blank.
    """

    def __init__(self, candidates: Sequence[str]) -> None:
        self._names = candidates
        self._exact: dict[str, int] = {}
        for place, name in enumerate(candidates):
            self._exact.setdefault(name, place)

    @cached_property
    def _spelled(self) -> list[tuple[Callable[[str], str], dict[str, list[int]]]]:
        """Positions of each synonym, for one kind of spelling after another."""
        levels: list[tuple[Callable[[str], str], dict[str, list[int]]]] = []
        words = [
            (place, word)
            for place, name in enumerate(self._names)
            if name.strip()
            for word in synonyms_of(name)
        ]
        for spelling in (str, _plain, canonical):
            places: dict[str, list[int]] = {}
            for place, word in words:
                places.setdefault(spelling(word), []).append(place)
            levels.append((spelling, places))
        return levels

    def find(self, name: str) -> int | None:
        """Return the position of the candidate that means the same class as ``name``.

        Raises:
            ValueError: if several candidates match equally well.
        """
        if name in self._exact:
            return self._exact[name]
        for spelling, places in self._spelled:
            words = {spelling(word) for word in synonyms_of(name)}
            found = sorted({p for word in words for p in places.get(word, ())})
            if len(found) > 1:
                listed = ', '.join(repr(self._names[place]) for place in found)
                raise ValueError(f'class {name!r} could be any of {listed}: rename it')
            if found:
                return found[0]
        return None


def find_name(name: str, candidates: Sequence[str]) -> int | None:
    """Return the position of a class among names, see :class:`NameFinder`.

    Args:
        name: a class name.
        candidates: the names of a data set or a split.

    Returns:
        The index into ``candidates``, or None if nothing matches.

    Raises:
        ValueError: if several candidates match equally well.
    """
    return NameFinder(candidates).find(name)


def same_classes(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the positions of names that mean a class named before, after its own.

    They have a synonym in common, but for case, spaces, ``_`` and ``-``.
    """
    first: dict[str, int] = {}
    found: dict[int, int] = {}
    for place, name in enumerate(names):
        for word in {_plain(word) for word in synonyms_of(name)}:
            if first.setdefault(word, place) != place:
                found.setdefault(place, first[word])
    return [(before, place) for place, before in found.items()]


#: What training sees of the pixels of unseen classes: nothing; that they are there and
#: may get a pseudo-label; their labels; or, of an inductive training in which
#: something leaks, where they are.
SETTINGS = ('inductive', 'transductive', 'supervised', 'unseen_location')
#: Those in which only seen names have rows in training.
SEEN_ROWS = ('inductive', 'unseen_location')

_SPLIT_KEYS = ('name', 'classes', 'seen', 'unseen', 'source')


@dataclass(frozen=True)
class ZeroShotSplit:
    """Class names in label order, each either seen or unseen in training.

    Attributes:
        name: what the split is called.
        classes: all class names; labels and scores are indices into them.
        seen: names with masks in training, in the order of ``classes``.
        unseen: names without, in the order of ``classes``.
        source: where the split was published.

    Raises:
        ValueError: if a name is empty, occurs twice, is both seen and unseen,
            neither, or not among the classes.
    """

    name: str
    classes: tuple[str, ...]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    source: str = ''

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError(f'split {self.name!r} has no classes')
        if len(self.classes) > WIDE.unlabelled:
            raise ValueError(
                f'split {self.name!r} has {len(self.classes)} classes; label maps '
                f'hold at most {WIDE.unlabelled}'
            )
        for kind in ('classes', 'seen', 'unseen'):
            self._check_names(kind)
        in_both = {*self.seen} & {*self.unseen}
        both = [name for name in self.classes if name in in_both]
        if both:
            raise ValueError(
                f'split {self.name!r}: seen and unseen overlap in {", ".join(both)}'
            )
        in_any = {*self.seen, *self.unseen}
        neither = [name for name in self.classes if name not in in_any]
        if neither:
            raise ValueError(
                f'split {self.name!r}: neither seen nor unseen: {", ".join(neither)}'
            )
        for kind in ('seen', 'unseen'):
            chosen = set(getattr(self, kind))
            ordered = tuple(name for name in self.classes if name in chosen)
            object.__setattr__(self, kind, ordered)

    def _check_names(self, kind: str) -> None:
        names = _require_names(self.name, kind, getattr(self, kind))
        twice = [names[place] for _, place in same_classes(names)]
        if twice:
            raise ValueError(
                f'split {self.name!r}: {kind} lists {", ".join(twice)} more than once '
                '(case, spaces, _ and - tell no classes apart)'
            )
        known = {*self.classes}
        for name in names:
            if name not in known:
                raise ValueError(
                    f'split {self.name!r}: {kind} name {name!r} is no class.'
                    f'{did_you_mean(name, self.classes)}'
                )

    @cached_property
    def seen_indices(self) -> tuple[int, ...]:
        """Positions of the seen names in ``classes``, ascending."""
        return tuple(i for i, is_seen in enumerate(self.seen_mask()) if is_seen)

    @cached_property
    def unseen_indices(self) -> tuple[int, ...]:
        """Positions of the unseen names in ``classes``, ascending."""
        return tuple(i for i, is_seen in enumerate(self.seen_mask()) if not is_seen)

    def seen_mask(self) -> list[bool]:
        """Tell for each class whether it is seen."""
        seen = set(self.seen)
        return [name in seen for name in self.classes]

    def ordered_as(self, classes: Sequence[str]) -> ZeroShotSplit:
        """Return the split in the order, and with the spellings, of other class names.

        Args:
            classes: names of the same classes, e.g. those of a data set.

        Raises:
            ValueError: if one of the two has a class that the other has not.
        """
        finder = NameFinder(classes)
        positions = [finder.find(name) for name in self.classes]
        missing = [
            name
            for name, position in zip(self.classes, positions, strict=True)
            if position is None
        ]
        used = {*positions}
        surplus = [name for i, name in enumerate(classes) if i not in used]
        if missing or surplus:
            raise ValueError(
                f'split {self.name!r} and the data set have different classes; only in '
                f'the split: {missing or "none"}; only in the data set: '
                f'{surplus or "none"}'
            )
        return make_split(self.name, classes, self.unseen, self.source)

    @cached_property
    def fingerprint(self) -> str:
        """A hash that is equal only for the same names in the same order and roles."""
        return content_hash('\0'.join(self.classes), '\0'.join(self.unseen))

    def as_dict(self) -> dict[str, Any]:
        """Return plain lists and strings, from which the split can be made again."""
        return dict(
            name=self.name,
            classes=list(self.classes),
            seen=list(self.seen),
            unseen=list(self.unseen),
            source=self.source,
        )


def make_split(
    name: str,
    classes: Sequence[str],
    unseen: Sequence[str],
    source: str = '',
    seen: Sequence[str] | None = None,
) -> ZeroShotSplit:
    """Make a split from its classes and the unseen ones among them.

    Args:
        name: what the split is called.
        classes: all class names in label order.
        unseen: unseen names; aliases of the spelling in ``classes`` will do.
        source: where the split was published.
        seen: seen names; all others by default.

    Raises:
        ValueError: see :class:`ZeroShotSplit`.
    """
    for kind, text in (('name', name), ('source', source)):
        if not isinstance(text, str):
            raise ValueError(f'split: {kind} must be a string, got {text!r}')
    classes = _require_names(name, 'classes', classes)
    unseen = _require_names(name, 'unseen', unseen)
    unseen = _spelled_as_in(unseen, classes)
    if seen is None:
        hidden = {*unseen}
        seen = [class_name for class_name in classes if class_name not in hidden]
    else:
        seen = _spelled_as_in(_require_names(name, 'seen', seen), classes)
    return ZeroShotSplit(name, tuple(classes), tuple(seen), tuple(unseen), source)


def _require_names(split: str, kind: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str | Mapping) or not isinstance(names, Iterable):
        raise ValueError(
            f'split {split!r}: {kind} must be a list of names, got {names!r}'
        )
    listed = tuple(names)
    bad = [name for name in listed if not isinstance(name, str) or not name.strip()]
    if bad:
        raise ValueError(
            f'split {split!r}: {kind} must be non-empty strings, got {bad[0]!r}'
        )
    return listed


def _spelled_as_in(names: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return the classes that names mean, or the names themselves for later errors."""
    finder = NameFinder(classes)
    places = [finder.find(name) for name in names]
    return [
        name if place is None else classes[place]
        for name, place in zip(names, places, strict=True)
    ]


def pseudo_unseen(
    split: ZeroShotSplit, chosen: int | Sequence[str], seed: int = 0
) -> ZeroShotSplit:
    """Return a split of the seen classes alone, some of which play the unseen ones.

    What is chosen on it, such as the constant of a calibrator, is chosen without any
    label of an unseen class. The classes keep their order.

    Args:
        split: with the classes that are really unseen, which are left out.
        chosen: the seen classes that play unseen ones, or how many are drawn.
        seed: of the draw.

    Raises:
        ValueError: for a class that is not seen, and if none, or no other, is left.
    """
    seen = split.seen
    if isinstance(chosen, int):
        names = random.Random(seed).sample(seen, min(max(chosen, 0), len(seen)))
    else:
        names = _spelled_as_in(chosen, seen)
    strange = [name for name in names if name not in seen]
    if strange:
        raise ValueError(
            f'pseudo-unseen class {strange[0]!r} is no seen class of split '
            f'{split.name!r}.{did_you_mean(strange[0], seen)}'
        )
    if not 0 < len(names) < len(seen):
        raise ValueError(
            f'split {split.name!r} has {len(seen)} seen classes: at least one and at '
            f'most {len(seen) - 1} can be pseudo-unseen, not {len(names)}'
        )
    return make_split(
        f'{split.name}, pseudo-unseen {", ".join(names)}', seen, names, split.source
    )


def split_from_dict(config: Mapping[str, Any]) -> ZeroShotSplit:
    """Make a split from ``dict(classes=..., unseen=...)`` of a config.

    ``seen``, ``name`` and ``source`` are optional.

    Raises:
        ValueError: if a key is missing or unknown, or the split itself is wrong.
    """
    unknown = [key for key in config if key not in _SPLIT_KEYS]
    if unknown:
        raise ValueError(
            f'a split has no key {unknown[0]!r}; its keys are {", ".join(_SPLIT_KEYS)}.'
            f'{did_you_mean(str(unknown[0]), _SPLIT_KEYS)}'
        )
    missing = [key for key in ('classes', 'unseen') if key not in config]
    if missing:
        raise ValueError(f'a split of your own needs {" and ".join(missing)}')
    return make_split(
        config.get('name', 'custom'),
        config['classes'],
        config['unseen'],
        config.get('source', ''),
        config.get('seen'),
    )
